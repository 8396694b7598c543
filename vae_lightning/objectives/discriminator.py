"""Discriminators of codes, and what they and their adversaries minimise."""

from collections.abc import Callable, Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from .checks import at_least

__all__ = ["Discriminator", "MakesOptimizer", "telling_apart", "wide"]

MakesOptimizer = Callable[[Iterable[nn.Parameter]], Optimizer]


class Discriminator(nn.Module):
    """A multilayer perceptron from codes `(…, latent_dim)` to one logit each, `(…)`.

    Args:
        latent_dim: dimension of the codes.
        units: width of the hidden layers.
        layers: number of hidden layers.

    Raises:
        ValueError: for fewer than one unit or layer.
    """

    def __init__(self, latent_dim: int, units: int, layers: int) -> None:
        super().__init__()
        at_least("units", units, 1)
        widths = [latent_dim] + [units] * at_least("layers", layers, 1)
        hidden: list[nn.Module] = []
        for before, after in pairwise(widths):
            hidden += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*hidden, nn.Linear(units, 1))

    def forward(self, z: Tensor) -> Tensor:
        return wide(self.layers(z).squeeze(-1))


def wide(logits: Tensor) -> Tensor:
    """Returns logits with at least 32 bits, even under mixed precision: they become terms of the loss."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def telling_apart(real: Tensor, other: Tensor) -> Tensor:
    """Returns −log D − log(1 − D'), from the logits of real inputs and of others, in their shape."""
    return functional.softplus(-real) + functional.softplus(other)
