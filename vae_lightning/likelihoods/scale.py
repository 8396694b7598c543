"""A learned scale."""

import torch
from torch import Tensor, nn

__all__ = ["ScaleParameter"]


class ScaleParameter(nn.Module):
    """log σ as ten times a parameter, so that optimizers with equal step sizes (Adam) fit σ within an epoch."""

    gain = 10.0

    def __init__(self, start: float) -> None:
        super().__init__()
        if not start > 0:
            raise ValueError(f"scale: must be greater than 0, got {start}")
        self.value = nn.Parameter(torch.tensor(start).log() / self.gain)

    def forward(self) -> Tensor:
        return self.gain * self.value
