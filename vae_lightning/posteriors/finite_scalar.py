"""Finite scalar quantisation: each dimension of the code takes one of a few values."""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from .codebook import Codebook, CodeSequence

__all__ = ["FiniteScalarHead"]

MARGIN = 1e-3  # share by which the range stays within the outermost values


class FiniteScalarHead(Codebook):
    """Features to a sequence of vectors whose dimensions are rounded to a few evenly spaced values from −1 to 1.

    An even number of values lacks the last of these: eight end at 0.75.

    There is no codebook to learn: all combinations of values are its vectors. Gradients pass as if nothing had been
    rounded.

    Args:
        features: number of input features. If it is the latent dimension, they are what is rounded; otherwise a linear
            map of them.
        latent_dim: dimension of z, a multiple of the number of `levels`.
        levels: number of values of each dimension of a vector, at least 3; K is their product. (8, 5, 5, 5) is 1,000.

    Raises:
        ValueError: for a latent dimension that is no multiple of the number of levels, or fewer than 3 values.

    Source: Mentzer et al. (2023), section 3, https://arxiv.org/abs/2309.15505.
    """

    values: Tensor
    basis: Tensor

    def __init__(self, features: int, latent_dim: int, levels: Sequence[int] = (8, 5, 5, 5)) -> None:
        if not levels or min(levels) < 3 or latent_dim % len(levels):
            raise ValueError(
                f"levels: must be numbers of at least 3, as many as divide latent_dim={latent_dim}; got {list(levels)}"
            )
        super().__init__(latent_dim // len(levels), prod(levels), len(levels))
        self.project = nn.Identity() if features == latent_dim else nn.Linear(features, latent_dim)
        self.register_buffer("values", torch.tensor(levels), persistent=False)
        self.register_buffer("basis", torch.tensor([prod(levels[:i]) for i in range(len(levels))]), persistent=False)

    def lookup(self, indices: Tensor) -> Tensor:
        digits = indices.unsqueeze(-1).div(self.basis, rounding_mode="floor") % self.values
        return (digits - self._half) / self._half

    def nearest(self, vectors: Tensor) -> Tensor:
        digits = (vectors * self._half).round() + self._half
        return (digits.clamp(min=0).minimum(self.values - 1).long() * self.basis).sum(-1)

    def forward(self, features: Tensor) -> CodeSequence:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        found = self.project(features)
        found = found.to(torch.promote_types(found.dtype, torch.float32)).unflatten(-1, (self.positions, self.code_dim))
        bounded = self._bounded(found)
        rounded = bounded + (bounded.round() - bounded).detach()
        z = rounded / self._half
        return CodeSequence(z.flatten(-2), self.nearest(z.detach()), self, z.new_zeros(z.shape[:-2]))

    @property
    def _half(self) -> Tensor:
        return self.values // 2

    def _bounded(self, x: Tensor) -> Tensor:
        """Squashes x so that rounding it gives as many whole numbers as there are values; 0 stays 0."""
        reach = (self.values - 1) * (1 - MARGIN) / 2
        shift = torch.where(self.values % 2 == 0, 0.5, 0.0)
        return (x + (shift / reach).atanh()).tanh() * reach - shift
