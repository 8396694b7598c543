"""The posterior of a ladder of latent variables: several levels, each given the one above it."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from ..distributions.ladder import Ladder, TopDown, mean_and_deviation
from ..rates import level_rates, log_prob_of_each
from .functions import point, spread

__all__ = ["LadderHead", "level_sizes"]


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
            evidence.append(mean_and_deviation(output(features)))
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


@log_prob_of_each.register
def _(posterior: Ladder, z: Tensor) -> Tensor:
    return posterior.log_prob(z.unsqueeze(1))  # the networks see each code once, not once for each image
