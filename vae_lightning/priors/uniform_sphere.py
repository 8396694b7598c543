"""The uniform prior on the unit sphere."""

import torch
from torch import Tensor

from ..distributions import SphericalUniform
from ..latent_spaces import Sphere
from .prior import Prior

__all__ = ["UniformSphere"]


class UniformSphere(Prior):
    """The uniform distribution on the unit sphere in R^latent_dim, without parameters.

    Args:
        latent_dim: dimension of z, at least 2.
    """

    latent_space = Sphere
    zeros: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)

    def distribution(self) -> SphericalUniform:
        return SphericalUniform(self.zeros)
