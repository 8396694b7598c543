"""InfoVAE: the aggregate posterior is matched to the prior by its MMD."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..rates import rate
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["MMD", "gaussian_kernel", "prior_samples", "squared_mmd"]


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
        divergence = squared_mmd(z, prior_samples(prior, z))
        loss = distortion + (1 - self.alpha) * found + (self.alpha + self.weight - 1) * divergence
        return {"loss": loss, "distortion": distortion, "rate": found, "mmd": divergence.expand_as(found)}


def prior_samples(prior: Distribution, z: Tensor) -> Tensor:
    """Returns as many samples of the prior as there are codes z, `(B, latent_dim)`; for an image each if conditional.

    They have no gradient: a learned prior is trained by the rate, if at all.
    """
    with torch.no_grad():
        return prior.sample(z.shape[: 1 - len(prior.batch_shape)])


def gaussian_kernel(distances: Tensor, dimension: int) -> Tensor:
    """Returns exp(−‖a − b‖²/(2 d)) of squared distances between codes of d dimensions."""
    return (-distances / (2 * dimension)).exp()


def squared_mmd(one: Tensor, other: Tensor, kernel: Callable[[Tensor, int], Tensor] = gaussian_kernel) -> Tensor:
    """Returns the unbiased estimate of MMD², a scalar, from samples `(B, latent_dim)` of two distributions.

    Args:
        one: samples of one distribution.
        other: as many of the other; a single sample of each gives 0.
        kernel: function of squared distances and of the dimension.
    """
    count, dimension = one.shape
    if count == 1:
        return one.new_zeros(())

    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return kernel((a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2), dimension)

    def apart(a: Tensor) -> Tensor:
        found = matrix(a, a)
        return found.sum() - found.diagonal().sum()

    within = (apart(one) + apart(other)) / (count * (count - 1))
    return within - 2 * matrix(one, other).mean()
