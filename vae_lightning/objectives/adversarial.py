"""The adversarial autoencoder: a discriminator matches the aggregate posterior to the prior."""

from collections.abc import Mapping

from torch.nn import functional

from ..data.batch import Batch
from ..rates import known_rate
from .checks import at_least, require_fixed_prior
from .discriminator import Discriminator, MakesOptimizer, telling_apart
from .elbo import ELBO
from .mmd import prior_samples
from .objective import Model, Player, Terms

__all__ = ["Adversarial"]


class Adversarial(ELBO):
    """distortion − λ·log D(z): codes that a discriminator D takes for samples of the prior.

    D minimises −log D(z') − log(1 − D(z)) for samples z' of the prior. The encoder's part is the non-saturating one.
    The source alternates steps for the two parts of the encoder's loss; here they are taken at once. The rate is
    logged, but not part of the loss.

    Args:
        latent_dim: dimension of z.
        weight: λ, at least 0.
        units: width of the discriminator's hidden layers.
        layers: number of its hidden layers.
        optimizer: makes the discriminator's optimizer; None for one like the model's.

    Raises:
        ValueError: for an option out of range; for a learned prior.

    Source: Makhzani et al. (2016), section 2, https://arxiv.org/abs/1511.05644.
    """

    def __init__(
        self,
        latent_dim: int,
        weight: float = 10.0,
        units: int = 256,
        layers: int = 2,
        optimizer: MakesOptimizer | None = None,
    ) -> None:
        super().__init__()
        self.weight = at_least("weight", weight, 0)
        self.discriminator = Discriminator(latent_dim, units, layers)
        self.optimizer = optimizer

    def check(self, model: Model) -> None:
        require_fixed_prior(self, model)

    def players(self) -> Mapping[str, Player]:
        return {"discriminator_loss": Player(self.discriminator, self.optimizer)}

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        of_codes = self.discriminator(z)
        of_prior = self.discriminator(prior_samples(prior, z))
        fooling = functional.softplus(-of_codes)
        terms = {
            "loss": distortion + self.weight * fooling,
            "distortion": distortion,
            "fooling_loss": fooling,
            "discriminator_loss": telling_apart(of_prior, of_codes),
        }
        return terms | known_rate(posterior, prior, z)
