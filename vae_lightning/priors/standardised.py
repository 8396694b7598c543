"""What priors have in common whose networks expect codes of a standard size."""

import torch
from torch import Tensor

from .prior import Prior

__all__ = ["Standardised"]


class Standardised(Prior):
    """A prior whose networks see (z − location) / scale, both fixed: 0 and 1 unless codes are given.

    Args:
        latent_dim: dimension of z.
    """

    location: Tensor
    scale: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("location", torch.zeros(latent_dim))
        self.register_buffer("scale", torch.ones(latent_dim))

    def standardise(self, codes: Tensor) -> None:
        """Sets both to the mean and standard deviation of codes `(N, latent_dim)`."""
        self.location.copy_(codes.mean(0))
        self.scale.copy_(codes.std(0).clamp(min=1e-6))
