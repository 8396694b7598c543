"""Whether samples lie where real images do, and real images where samples do: precision, recall, density, coverage.

A set of images is taken to fill the balls around its own features, each as large as the distance from the k-th
nearest of the others. One distance between two sets does not tell poor samples from samples that lack variety; these
four do.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["NEIGHBOURS", "Support", "half_sample_errors", "support"]

NEIGHBOURS = 5  # as Naeem et al. (2020) advise
BLOCK = 500  # rows of a matrix of distances at a time


class Support(NamedTuple):
    """How far two sets of features fill the same space.

    Attributes:
        precision: share of samples inside a ball of a real image.
        recall: share of real images inside a ball of a sample. Kynkäänniemi et al. (2019), section 2,
            https://arxiv.org/abs/1904.06991.
        density: number of real images' balls that a sample lies in, on average, over k. It may exceed 1; unlike
            precision, it counts little that lies in the large ball of an outlier alone.
        coverage: share of real images with a sample inside their ball. Naeem et al. (2020), section 3,
            https://arxiv.org/abs/2002.09797.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def support(real: Tensor, samples: Tensor, neighbours: int = NEIGHBOURS) -> Support:
    """Returns the four scores of features of samples `(M, F)` against those of real images `(N, F)`, at least 2 each.

    Of two sets with the same distribution, density is 1 in expectation and coverage about 1 − 2⁻ᵏ; precision and
    recall have no value of that kind, and all depend on the number of images: compare equal numbers.

    Args:
        real: `(N, F)`.
        samples: `(M, F)`.
        neighbours: k; one fewer than the images of the smaller set where these are no more.
    """
    real, samples = real.cpu().double(), samples.cpu().double()
    k = min(neighbours, len(real) - 1, len(samples) - 1)
    of_real, of_samples = _radii(real, k), _radii(samples, k)
    balls = []  # of real images, around each sample
    covered, recalled = torch.zeros(2, len(real), dtype=torch.bool)
    for part, radii in zip(samples.split(BLOCK), of_samples.split(BLOCK), strict=True):
        distances = torch.cdist(part, real)
        inside = distances <= of_real
        balls.append(inside.sum(1))
        covered |= inside.any(0)
        recalled |= (distances <= radii[:, None]).any(0)
    counts = torch.cat(balls).double()
    precision, recall, coverage = ((found > 0).double().mean().item() for found in (counts, recalled, covered))
    return Support(precision, recall, counts.mean().item() / k, coverage)


def _radii(features: Tensor, k: int) -> Tensor:
    """The distance of each of N points `(N, F)` from the k-th nearest of the others: `(N,)`."""
    # Of k + 1 neighbours, the nearest is the point itself.
    return torch.cat([torch.cdist(part, features).kthvalue(k + 1).values for part in features.split(BLOCK)])


def half_sample_errors(
    statistics: Callable[[Tensor, Tensor], Sequence[float]], real: Tensor, other: Tensor, draws: int
) -> Tensor:
    """Returns the standard errors `(S,)` of S statistics of two sets of N images, at least 4, from random halves.

    A bootstrap draws images twice, which are then each other's nearest neighbours: it moves coverage by several of its
    standard errors, and a Fréchet distance by one. Halves have no image twice.

    Args:
        statistics: a function of the features of both sets.
        real: `(N, F)`.
        other: `(N, F)`. The i-th of both are drawn together, so they may belong to each other.
        draws: number of halves, at least 2, from torch's random state; 50 give errors to 10 %.

    Source: the delete-half jackknife of Shao and Wu (1989), https://doi.org/10.1214/aos/1176347263, who show that it
    does for statistics that are not smooth, too.
    """
    size = len(real) // 2
    halves = [torch.randperm(len(real), device="cpu")[:size].to(real.device) for _ in range(draws)]
    found = torch.tensor([list(statistics(real[half], other[half])) for half in halves]).double()
    return found.std(0) * (size / (len(real) - size)) ** 0.5
