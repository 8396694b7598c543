"""InfoVAE: the aggregate posterior is matched to the prior by its MMD."""

import torch
from torch import Tensor

from ..data.batch import Batch
from ..rates import rate
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["MMD", "squared_mmd"]


class MMD(ELBO):
    """distortion + (1 − α)·rate + (α + λ − 1)·MMD²(q(z), p(z)): InfoVAE.

    MMD² is estimated without bias from the batch's codes and equally many samples of the prior, with the kernel
    exp(−‖a − b‖²/(2 d)), where d is the latent dimension; it is 0 for a batch of one.

    Args:
        alpha: α; 1 drops the rate, 0 keeps it in full.
        weight: λ, at least 1 − α. MMD² is at most 2, so useful weights are of the order of the distortion.

    Raises:
        ValueError: for a weight that is too small.

    Source: Zhao, Song and Ermon (2019), equation 6, https://arxiv.org/abs/1706.02262; Gretton et al. (2012), lemma 6.
    """

    def __init__(self, alpha: float = 0.5, weight: float = 500.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.weight = at_least("weight", weight, 1 - alpha)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, prior, z)
        # A learned prior is trained by the rate alone; this term moves only the codes.
        with torch.no_grad():
            drawn = prior.sample(z.shape[: 1 - len(prior.batch_shape)])
        divergence = squared_mmd(z, drawn)
        loss = distortion + (1 - self.alpha) * found + (self.alpha + self.weight - 1) * divergence
        return {"loss": loss, "distortion": distortion, "rate": found, "mmd": divergence.expand_as(found)}


def squared_mmd(one: Tensor, other: Tensor) -> Tensor:
    """Returns the unbiased estimate of MMD², a scalar, from samples `(B, latent_dim)` of two distributions."""
    count, dimension = one.shape
    if count == 1:
        return one.new_zeros(())

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)
        return (-distances / (2 * dimension)).exp()

    within = sum(kernel(a, a).sum() - count for a in (one, other)) / (count * (count - 1))
    return within - 2 * kernel(one, other).mean()
