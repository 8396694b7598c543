"""The usual prior."""

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from .prior import Prior

__all__ = ["StandardNormal"]


class StandardNormal(Prior):
    """N(0, I), without parameters.

    Args:
        latent_dim: dimension of z.
    """

    zeros: Tensor
    ones: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def distribution(self) -> Independent:
        return Independent(Normal(self.zeros, self.ones, validate_args=False), 1, validate_args=False)
