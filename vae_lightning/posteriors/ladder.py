"""A ladder of latent variables: a posterior and a prior of several levels, each given the one above it."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Normal, kl_divergence
from torch.distributions.constraints import Constraint

from ..rates import level_rates
from .functions import point, spread

__all__ = ["Ladder", "LadderHead", "TopDown", "level_sizes"]


def level_sizes(latent_dim: int, levels: int | Sequence[int]) -> tuple[int, ...]:
    """Returns the dimensions of the levels, from the data upwards.

    Args:
        latent_dim: of all levels together.
        levels: their number, for levels of equal sizes (the lowest gets the remainder), or their sizes.

    Raises:
        ValueError: for fewer than two levels, or sizes that do not add up to the latent dimension.

    >>> level_sizes(16, 3), level_sizes(16, [10, 4, 2])
    ((6, 5, 5), (10, 4, 2))
    """
    if isinstance(levels, int):
        if not 2 <= levels <= latent_dim:
            raise ValueError(f"levels: must be from 2 to latent_dim={latent_dim}, got {levels}")
        size = latent_dim // levels
        return (latent_dim - (levels - 1) * size, *[size] * (levels - 1))
    if len(levels) < 2 or min(levels) < 1 or sum(levels) != latent_dim:
        raise ValueError(f"levels: must be two sizes or more that add up to latent_dim={latent_dim}, got {levels}")
    return tuple(levels)


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
        return _mean_and_deviation(self.networks[level](above))


class Ladder(Distribution):
    """A distribution over codes (z_1, …, z_L) that is sampled from the top level down.

    Without evidence it is the prior that its `top_down` describes. With evidence it is a posterior: below the top, what
    the image says of a level and what the level above says of it are averaged, weighted by their precisions.

    Args:
        top_down: the generative side.
        evidence: what the image says of each level, from the data upwards: a mean and a standard deviation `(B, size)`.

    Source: Sønderby et al. (2016), equations 17 to 20, https://arxiv.org/abs/1602.02282.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample = True

    def __init__(self, top_down: TopDown, evidence: Sequence[tuple[Tensor, Tensor]] = ()) -> None:
        self.top_down = top_down
        self.evidence = tuple(evidence)
        batch_shape = evidence[0][0].shape[:-1] if evidence else torch.Size()
        super().__init__(batch_shape, torch.Size([sum(top_down.sizes)]), validate_args=False)

    def level(self, level: int, above: Tensor | None) -> tuple[Tensor, Tensor]:
        """Returns the mean and standard deviation `(…, size)` of a level, from 0, given the level above it."""
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


class LadderHead(nn.Module):
    """Features to a `Ladder`: each level's evidence comes from a hidden layer above the one of the level below it.

    Unlike in the paper, the decoder sees all levels, and there is no batch norm.

    Args:
        features: number of input features.
        latent_dim: dimension of z, of all levels together.
        levels: number of levels, or their sizes, from the data upwards; see `level_sizes`.
        hidden: units of the hidden layers.

    Raises:
        ValueError: see `level_sizes`.
    """

    def __init__(self, features: int, latent_dim: int, levels: int | Sequence[int] = 2, hidden: int = 128) -> None:
        super().__init__()
        sizes = level_sizes(latent_dim, levels)
        self.top_down = TopDown(sizes, hidden)
        widths = [features, *[hidden] * len(sizes)]
        self.bottom_up = nn.ModuleList(nn.Sequential(nn.Linear(*pair), nn.LeakyReLU()) for pair in pairwise(widths))
        self.evidence = nn.ModuleList(nn.Linear(hidden, 2 * size) for size in sizes)

    def forward(self, features: Tensor) -> Ladder:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        evidence = []
        for layer, output in zip(self.bottom_up, self.evidence, strict=True):
            features = layer(features)
            evidence.append(_mean_and_deviation(output(features)))
        return Ladder(self.top_down, evidence)


@point.register
def _(posterior: Ladder) -> Tensor:
    return posterior.descend(lambda mean, _: mean)


@spread.register
def _(posterior: Ladder) -> Tensor:
    """Of each level, given the means of those above it."""
    return torch.cat([normal.stddev for normal in posterior.normals(point(posterior))], -1)


@level_rates.register
def _(posterior: Ladder, prior: Distribution, z: Tensor) -> tuple[Tensor, ...]:
    if not isinstance(prior, Ladder) or prior.top_down.sizes != posterior.top_down.sizes:
        return ()
    pairs = zip(posterior.normals(z), prior.normals(z), strict=True)
    return tuple(kl_divergence(one, other).expand(*z.shape[:-1], -1) for one, other in pairs)


def _network(features: int, size: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, hidden), nn.LeakyReLU(), nn.Linear(hidden, 2 * size))


def _mean_and_deviation(output: Tensor) -> tuple[Tensor, Tensor]:
    # 32 bits even under mixed precision: densities are differences of large numbers.
    mean, log_variance = output.to(torch.promote_types(output.dtype, torch.float32)).chunk(2, -1)
    return mean, (0.5 * log_variance).exp()
