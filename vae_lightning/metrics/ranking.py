"""Which of several models disentangle, told without known factors: those whose dimensions other seeds find again."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Lasso
from sklearn.preprocessing import StandardScaler
from torch import Tensor

__all__ = ["unsupervised_disentanglement_ranking"]

INFORMATIVE = 0.01  # nats of rate
PENALTY = 0.1  # of the lasso, as in the authors' code


def unsupervised_disentanglement_ranking(codes: Sequence[Tensor], rates: Sequence[Tensor]) -> list[float]:
    """Returns a score for each of at least two models that differ in the seed alone: higher is better.

    For each pair of models a lasso predicts the standardised dimensions of one from those of the other. A pair scores
    high if each informative dimension of either has one dimension of the other to itself: 0.9, which is 1 less the
    lasso's penalty, for models that are the same up to the order, sign and scale of their dimensions. A model's score
    is the median over its pairs.

    Args:
        codes: of the same images, `(N, D)`, by model; D may differ.
        rates: mean rate of each dimension in nats, `(D,)`, by model. Dimensions of at most 0.01 are left out.

    Raises:
        ValueError: for fewer than two models, or codes of different numbers of images.

    Source: Duan et al. (2020), https://arxiv.org/abs/1905.12614, the version with the lasso.
    """
    if len(codes) < 2 or len({len(points) for points in codes}) > 1:
        raise ValueError(f"codes: must be of the same images, by two or more models, got {[*map(len, codes)]}")
    known = [
        StandardScaler().fit_transform(points.double().numpy())[:, (rate > INFORMATIVE).numpy()]
        for points, rate in zip(codes, rates, strict=True)
    ]
    pairs = np.array([[np.nan if one is other else _alike(one, other) for one in known] for other in known])
    return np.nanmedian(pairs, axis=1).tolist()


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """How well the dimensions `(N, D)` and `(N, E)` of two models correspond, one to one."""
    if not one.shape[1] or not other.shape[1]:
        return 0.0
    weights = np.abs(Lasso(alpha=PENALTY).fit(one, other).coef_).reshape(other.shape[1], one.shape[1])
    total = 0.0
    for table in (weights, weights.T):
        sums = table.sum(1)
        total += np.sum(table.max(1)[sums > 0] ** 2 / sums[sums > 0])
    return float(total / sum(weights.shape))
