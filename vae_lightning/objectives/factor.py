"""FactorVAE: the total correlation of the code, estimated by a discriminator, has a weight of its own."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..data.batch import Batch
from ..rates import rate
from .checks import at_least
from .discriminator import Discriminator, MakesOptimizer, telling_apart
from .elbo import ELBO
from .objective import Model, Player, Terms

__all__ = ["Factor"]


class Factor(ELBO):
    """distortion + rate + γ·TC(z), with the total correlation TC = KL(q(z) ‖ Π_j q(z_j)).

    A discriminator D tells codes from codes whose dimensions are shuffled within the batch, each on its own: samples
    of Π_j q(z_j). At its optimum log D(z)/(1 − D(z)) is the log-ratio of the two densities, whose mean over codes is
    TC. The source's D has two logits, of which only the difference matters; this one returns the difference, so its
    output is the log-ratio itself.

    Args:
        latent_dim: dimension of z.
        gamma: γ, at least 0; 0 is the ELBO.
        units: width of the discriminator's hidden layers; 1000 in the source.
        layers: number of its hidden layers.
        optimizer: makes the discriminator's optimizer; None for one like the model's.

    Raises:
        ValueError: for an option out of range.

    Source: Kim and Mnih (2018), equations 2 and 3 and algorithm 2, https://arxiv.org/abs/1802.05983.
    """

    def __init__(
        self,
        latent_dim: int,
        gamma: float = 10.0,
        units: int = 256,
        layers: int = 5,
        optimizer: MakesOptimizer | None = None,
    ) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 0)
        self.discriminator = Discriminator(latent_dim, units, layers)
        self.optimizer = optimizer

    def players(self) -> Mapping[str, Player]:
        return {"discriminator_loss": Player(self.discriminator, self.optimizer)}

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        correlation = self.discriminator(z)
        return {
            "loss": distortion + found + self.gamma * correlation,
            "distortion": distortion,
            "rate": found,
            "total_correlation": correlation,
            "discriminator_loss": telling_apart(correlation, self.discriminator(shuffled(z.detach()))),
        }


def shuffled(z: Tensor) -> Tensor:
    """Returns codes `(B, latent_dim)` of which each dimension is permuted within the batch on its own."""
    return z.gather(0, torch.rand_like(z).argsort(0))
