"""An exponential variable truncated to [0, 1]."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional

__all__ = ["TruncatedExponential"]


class TruncatedExponential(Distribution):
    """The density η e^(ηx) / (e^η − 1) on [0, 1], uniform for η = 0.

    Args:
        rate: η, of any shape.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.unit_interval

    def __init__(self, rate: Tensor) -> None:
        super().__init__(rate.shape, validate_args=False)
        self.rate = rate

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "TruncatedExponential":
        return TruncatedExponential(self.rate.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """1/(1 − e^−η) − 1/η."""
        eta, small = self._apart_from_zero(0.05)
        size = eta.abs()
        rising = -1 / torch.expm1(-size) - 1 / size  # of |η|, which cannot overflow, nor its gradient
        return torch.where(small, 0.5 + self.rate / 12, torch.where(eta > 0, rising, 1 - rising))

    def log_prob(self, value: Tensor) -> Tensor:
        eta, small = self._apart_from_zero(1e-3)
        size = eta.abs()
        # log((e^η − 1)/η) in a form that cannot overflow, and its series around 0
        log_normaliser = functional.relu(eta) + (-torch.expm1(-size)).log() - size.log()
        return self.rate * value - torch.where(small, self.rate / 2 + self.rate.square() / 24, log_normaliser)

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.rate.dtype, device=self.rate.device)
        eta, small = self._apart_from_zero(1e-3)
        # For −|η| nothing overflows; a variable x of rate −η is 1 − x of rate η.
        falling = torch.log1p(u * torch.expm1(-eta.abs())) / -eta.abs()
        return torch.where(small, u, torch.where(eta < 0, falling, 1 - falling)).clamp(0, 1)

    def _apart_from_zero(self, distance: float) -> tuple[Tensor, Tensor]:
        """η with small values replaced by 1, so that nothing, gradients included, divides by 0; and a mask of them."""
        small = self.rate.abs() < distance
        return torch.where(small, torch.ones_like(self.rate), self.rate), small
