"""The evidence lower bound with a rate weight that is annealed during training."""

import torch
from torch import Tensor

from .checks import at_least
from .elbo import ELBO

__all__ = ["Annealed"]


class Annealed(ELBO):
    """distortion + β_t·rate, with β_t rising from 0 in each cycle and constant after the last.

    In a cycle of T steps β_t = β·min(1, t/(r·T)). One cycle with r = 1 is the linear warm-up of Bowman et al.

    Args:
        steps: total number of optimizer steps in all cycles.
        cycles: number of cycles.
        ramp: r, the fraction of a cycle in which β_t rises, greater than 0 and at most 1.
        beta: β, the final value of β_t.

    Raises:
        ValueError: for an option out of range.

    Source: Bowman et al. (2016), section 3.1, https://arxiv.org/abs/1511.06349; Fu et al. (2019), https://arxiv.org/abs/1903.10145.
    """

    taken: Tensor

    def __init__(self, steps: int = 500, cycles: int = 1, ramp: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < ramp <= 1:
            raise ValueError(f"ramp: must be greater than 0 and at most 1, got {ramp}")
        self.steps = at_least("steps", steps, 1)
        self.cycles = at_least("cycles", cycles, 1)
        self.ramp = ramp
        self.beta = at_least("beta", beta, 0)
        # A buffer, so that checkpoints include it.
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def advance(self) -> None:
        """Counts an optimizer step."""
        self.taken += 1

    @property
    def weight(self) -> Tensor:
        """β_t for the next step, a scalar."""
        position = (self.taken * self.cycles / self.steps).frac()
        rising = (position / self.ramp).clamp(max=1.0)
        return self.beta * torch.where(self.taken < self.steps, rising, torch.ones_like(rising))

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.weight.to(rate.dtype) * rate
