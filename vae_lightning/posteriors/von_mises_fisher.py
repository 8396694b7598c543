"""A posterior on the unit sphere."""

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from ..distributions import VonMisesFisher
from ..latent_spaces import Sphere
from .functions import moments, point

__all__ = ["VonMisesFisherHead"]


class VonMisesFisherHead(nn.Module):
    """q(z|x) ∝ exp(κ μᵀz) on the unit sphere in R^latent_dim: linear maps to the direction of μ and to κ.

    κ is latent_dim times a softplus: the mean cosine depends on about κ / latent_dim, so that at first samples are half
    signal, half noise in any dimension.

    Args:
        features: number of input features.
        latent_dim: dimension of z, at least 2; the sphere has one dimension less.

    Raises:
        ValueError: for a single dimension.

    Source: Davidson et al. (2018), section 3, https://arxiv.org/abs/1804.00891.
    """

    latent_space = Sphere

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        if latent_dim < 2:
            raise ValueError(f"latent_dim: von_mises_fisher needs at least 2, got {latent_dim}")
        self.direction = nn.Linear(features, latent_dim)
        self.concentration = nn.Linear(features, 1)

    def forward(self, features: Tensor) -> VonMisesFisher:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        # 32 bits even under mixed precision: densities are differences of large numbers.
        direction, concentration = (
            output.to(torch.promote_types(output.dtype, torch.float32))
            for output in (self.direction(features), self.concentration(features))
        )
        concentration = self.latent_dim * softplus(concentration.squeeze(-1))
        return VonMisesFisher(normalize(direction, dim=-1), concentration, validate_args=False)


@point.register
def _(posterior: VonMisesFisher) -> Tensor:
    return posterior.mode


@moments.register
def _(posterior: VonMisesFisher) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.covariance_matrix
