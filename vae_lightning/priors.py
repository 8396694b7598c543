"""Priors p(z): modules whose `distribution()` has batch shape `()` and event shape `(latent_dim,)`."""

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

__all__ = ["Prior", "StandardNormal"]


class Prior(Protocol):
    """What is asked of a prior."""

    def distribution(self) -> Distribution: ...


class StandardNormal(nn.Module):
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
