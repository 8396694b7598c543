"""DIP-VAE: the covariance of the code is drawn to the identity."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..posteriors import moments, point
from ..rates import rate
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["DIPI", "DIPII"]


class DIPI(ELBO):
    """distortion + rate + λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)², with C the covariance of the posterior means.

    C is that of the batch.

    Args:
        off_diagonal: λ_od, at least 0.
        diagonal: λ_d, at least 0; the source sets it to 10·λ_od.

    Raises:
        ValueError: for a negative weight.

    Source: Kumar, Sattigeri and Balakrishnan (2018), equation 6, https://arxiv.org/abs/1711.00848.
    """

    def __init__(self, off_diagonal: float = 10.0, diagonal: float = 100.0) -> None:
        super().__init__()
        self.off_diagonal = at_least("off_diagonal", off_diagonal, 0)
        self.diagonal = at_least("diagonal", diagonal, 0)

    def covariance(self, posterior: Distribution) -> Tensor:
        """Returns the covariance C `(latent_dim, latent_dim)` for the posteriors of a batch."""
        return _covariance(point(posterior))

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        covariance = self.covariance(posterior)
        if torch.is_grad_enabled() and z.requires_grad and not covariance.requires_grad:
            name, other = type(self).__name__, type(posterior).__name__
            raise ValueError(f"objective: {name} needs a posterior whose moments have a closed form, not {other}")
        diagonal = covariance.diagonal()
        across = covariance.square().sum() - diagonal.square().sum()
        penalty = self.off_diagonal * across + self.diagonal * (diagonal - 1).square().sum()
        penalty = penalty.expand_as(found)
        return {
            "loss": distortion + found + penalty,
            "distortion": distortion,
            "rate": found,
            "covariance_penalty": penalty,
        }


class DIPII(DIPI):
    """distortion + rate + λ_od Σ_{i≠j} C_ij² + λ_d Σ_i (C_ii − 1)², with C the covariance of the aggregate posterior.

    C is the covariance of the posterior means plus the mean of the posterior covariances, both over the batch.

    Args:
        off_diagonal: λ_od, at least 0.
        diagonal: λ_d, at least 0; the source sets it to λ_od.

    Raises:
        ValueError: for a negative weight.

    Source: Kumar, Sattigeri and Balakrishnan (2018), equation 7, https://arxiv.org/abs/1711.00848.
    """

    def __init__(self, off_diagonal: float = 10.0, diagonal: float = 10.0) -> None:
        super().__init__(off_diagonal, diagonal)

    def covariance(self, posterior: Distribution) -> Tensor:
        means, own = moments(posterior)
        within = own.mean(0)
        return _covariance(means) + (within.diag() if within.dim() == 1 else within)


def _covariance(points: Tensor) -> Tensor:
    """The covariance of points `(B, D)`, which for a single one is 0."""
    centred = points - points.mean(0)
    return centred.T @ centred / len(points)
