"""A distribution over the levels of a ladder, each given the one above it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal
from torch.distributions.constraints import Constraint

__all__ = ["Ladder", "TopDown", "mean_and_deviation"]


def mean_and_deviation(output: Tensor) -> tuple[Tensor, Tensor]:
    """Returns means and standard deviations, a half of the features each."""
    # 32 bits even under mixed precision: densities are differences of large numbers.
    mean, log_variance = output.to(torch.promote_types(output.dtype, torch.float32)).chunk(2, -1)
    return mean, (0.5 * log_variance).exp()


class TopDown(nn.Module):
    """The generative side of a ladder: p(z_L) = N(0, I), and p(z_l | z_{l+1}) = N(μ_l, diag σ_l²) by a network each.

    Args:
        sizes: dimensions of the levels, from the data upwards.
        hidden: units of each network's hidden layer.
    """

    unit: Tensor

    def __init__(self, sizes: Sequence[int], hidden: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.networks = nn.ModuleList(_network(above, below, hidden) for below, above in pairwise(sizes))
        self.register_buffer("unit", torch.ones(sizes[-1]), persistent=False)

    def forward(self, level: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the mean and standard deviation `(…, size)` of a level, from 0, given the level above it."""
        if above is None:
            return torch.zeros_like(self.unit), self.unit
        return mean_and_deviation(self.networks[level](above))


class Ladder(Distribution):
    """A distribution over codes (z_1, …, z_L) that is sampled from the top level down.

    Without evidence it is the prior that its `top_down` describes. With evidence it is a posterior: below the top, what
    the image says of a level and what the level above says of it are averaged, weighted by their precisions.

    Args:
        top_down: the generative side.
        evidence: what the image says of each level, from the data upwards: a mean and a standard deviation `(B, size)`.
        temperature: factor of the standard deviations.

    Source: Sønderby et al. (2016), equations 17 to 20, https://arxiv.org/abs/1602.02282.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample = True

    def __init__(
        self, top_down: TopDown, evidence: Sequence[tuple[Tensor, Tensor]] = (), temperature: float = 1.0
    ) -> None:
        self.top_down = top_down
        self.evidence = tuple(evidence)
        self.temperature = temperature
        batch_shape = evidence[0][0].shape[:-1] if evidence else torch.Size()
        super().__init__(batch_shape, torch.Size([sum(top_down.sizes)]), validate_args=False)

    def level(self, level: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the mean and standard deviation `(…, size)` of a level, from 0, given the level above it."""
        mean, deviation = self._level(level, above)
        return mean, deviation if self.temperature == 1 else self.temperature * deviation

    def _level(self, level: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.evidence:
            return self.top_down(level, above)
        mean, deviation = self.evidence[level]
        if above is None:
            return mean, deviation
        other_mean, other_deviation = self.top_down(level, above)
        precision, other_precision = deviation**-2, other_deviation**-2
        variance = 1 / (precision + other_precision)
        return variance * (precision * mean + other_precision * other_mean), variance.sqrt()

    def normals(self, z: Tensor) -> list[Normal]:
        """Returns the distribution of each level, from the data upwards, given the levels above it in z `(…, D)`."""
        parts = z.split(self.top_down.sizes, -1)
        given = [self.level(level, above) for level, above in enumerate((*parts[1:], None))]
        return [Normal(mean, deviation, validate_args=False) for mean, deviation in given]

    def descend(self, draw: Callable[[Tensor, Tensor], Tensor], given: Sequence[Tensor] = ()) -> Tensor:
        """Returns codes `(…, D)` that are made from the top down.

        Args:
            draw: makes a level's codes from its mean and standard deviation.
            given: codes of the highest levels, the top first.
        """
        parts = list(given)
        for level in reversed(range(len(self.top_down.sizes) - len(given))):
            parts.append(draw(*self.level(level, parts[-1] if parts else None)))
        return torch.cat(parts[::-1], -1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        def draw(mean: Tensor, deviation: Tensor) -> Tensor:
            mean = mean.expand(*sample_shape, *self.batch_shape, mean.shape[-1])
            return mean + deviation * torch.randn_like(mean)

        return self.descend(draw)

    def log_prob(self, z: Tensor) -> Tensor:
        parts = z.split(self.top_down.sizes, -1)
        return sum(normal.log_prob(part).sum(-1) for normal, part in zip(self.normals(z), parts, strict=True))


def _network(features: int, size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2 * size))
