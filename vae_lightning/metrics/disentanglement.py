"""How well single dimensions of codes stand for single known factors of variation: the scores of the literature.

Each of the papers leaves something open, and published implementations differ in it. Here, in all scores:

- The code of an image is a point, not a sample, as in Locatello et al. (2019), https://arxiv.org/abs/1811.12359.
- What needs discrete values has 20 of them, intervals with equally many images; only categories, and dimensions and
  factors with at most 20 values, keep their own. So a code that is monotonic in a factor knows all of it. (There, codes
  have 20 intervals of equal width, and factors their own values. A factor with a continuum of values would never be
  wholly known, and outliers widen the intervals.) Entropies are corrected for the number of images (Miller 1955), or
  what is independent would seem to share some information.
- Groups of images that share a factor are found among those given: images with the same one of these values. Nothing
  needs to be drawn anew, so the scores apply to any data whose factors are known.
- A predictor learns from training images and is judged by test images. What it tells counts from 0, no better than
  without the code, to 1: R² for a number; for a category, balanced accuracy, rescaled such that chance is 0.
- A dimension is unused if its standard deviation is less than 0.1 of the largest one's, which for codes of unit spread
  is the threshold of active units (Burda et al. 2016). It has no information about a factor, whatever its tiny values
  tell: in samples of the posterior they drown in noise.
- Factors that do not vary are ignored; at least two must vary.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import entr
from scipy.stats import entropy
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor

__all__ = [
    "DCI",
    "Factored",
    "beta_vae_score",
    "dci",
    "disentanglement",
    "factor_vae_score",
    "known_shares",
    "modularity",
    "mutual_information_gap",
    "separated_attribute_predictability",
    "varying",
]

BINS = 20
UNUSED, KNOWN = 0.1, 0.05
GROUP = 64  # images that share a factor, or pairs of them
GROUPS = 1000  # such groups to learn from, and as many to be judged by

Array = NDArray[np.float64]
Numbers = NDArray[np.int64]


class Factored(NamedTuple):
    """Codes of images, and the factors of variation that the images were made from.

    Attributes:
        codes: `(N, D)`.
        factors: `(N, K)`.
        categorical: whether the values of each of the K factors have no order.
    """

    codes: Tensor
    factors: Tensor
    categorical: Sequence[bool]


def varying(factors: Tensor) -> list[int]:
    """Returns the columns of factors `(N, K)` that have more than one value."""
    return [k for k, column in enumerate(factors.T) if (column != column[0]).any()]


def disentanglement(train: Factored, test: Factored) -> dict[str, float]:
    """Returns all scores by name, each from 0 to 1."""
    return {
        "mutual_information_gap": mutual_information_gap(test),
        "separated_attribute_predictability": separated_attribute_predictability(train, test),
        **dict(zip(DCI._fields, dci(train, test), strict=True)),
        "modularity": modularity(test),
        "factor_vae_score": factor_vae_score(train, test),
        "beta_vae_score": beta_vae_score(train, test),
    }


def known_shares(images: Factored) -> Tensor:
    """Returns how much each dimension alone knows of each factor, `(D, K)`.

    Their mutual information as a share of the factor's entropy, from 0 to 1; 0 for factors that do not vary.
    """
    codes, factors = _arrays(images, least=1)
    information, entropies = _information(codes, factors)
    shares = images.codes.new_zeros(codes.shape[1], images.factors.shape[1])
    shares[:, varying(images.factors)] = shares.new_tensor((information / entropies).clip(0, 1))
    return shares


def mutual_information_gap(images: Factored) -> float:
    """Returns the mean over factors of the gap between the two dimensions that know most of the factor.

    The gap of their mutual information with the factor, as a share of the factor's entropy: 1 if one dimension knows
    all of every factor and no other any of it, 0 if two know equally much.

    Source: Chen et al. (2018), https://arxiv.org/abs/1802.04942; estimated from discretised points, as Locatello et al.
    (2019) do, not from samples of the posteriors.
    """
    codes, factors = _arrays(images)
    information, entropies = _information(codes, factors)
    return float((_gap(information) / entropies).mean())


def modularity(images: Factored) -> float:
    """Returns the mean over dimensions of how far each knows of one factor alone; 0 if none knows of any.

    1 if every dimension knows of one factor at most; a factor may have several dimensions.

    Source: Ridgeway and Mozer (2018), https://arxiv.org/abs/1802.05312. They do not say what counts of dimensions that
    are unused or know nothing (less than 0.05 of any factor): in Locatello et al. (2019) 0, here they do not count.
    """
    codes, factors = _arrays(images)
    information, entropies = _information(codes, factors)
    knowing = (information / entropies).max(1) > KNOWN
    if not knowing.any():
        return 0.0
    squares = information[knowing] ** 2
    others = squares.sum(1) / squares.max(1) - 1
    return float((1 - others / (len(factors) - 1)).mean())


def separated_attribute_predictability(train: Factored, test: Factored) -> float:
    """Returns the mean over factors of the gap between the two dimensions that alone predict the factor best.

    A number is predicted linearly; a category by thresholds, as many as there are classes but one.

    Source: Kumar et al. (2018), https://arxiv.org/abs/1711.00848, which does not rescale the accuracy of categories.
    """
    (codes, factors), (test_codes, test_factors) = _arrays(train, test)
    told = np.zeros((codes.shape[1], len(factors)))
    for k, (known, truth) in enumerate(zip(factors, test_factors, strict=True)):
        for d, (points, others) in enumerate(zip(codes.T, test_codes.T, strict=True)):
            if known.categorical:
                tree = DecisionTreeClassifier(
                    max_leaf_nodes=len(np.unique(known.values)), class_weight="balanced", random_state=0
                )
                told[d, k] = _told(truth, tree.fit(points[:, None], known.values).predict(others[:, None]))
            elif np.ptp(others) > 0:
                told[d, k] = np.corrcoef(others, truth.values)[0, 1] ** 2
    return float(_gap(told).mean())


class DCI(NamedTuple):
    """Three scores from the importance of each dimension for predicting each factor, each from 0 to 1.

    Attributes:
        disentanglement: 1 if every dimension matters to one factor alone; dimensions count by their importance.
        completeness: 1 if for every factor one dimension alone matters.
        informativeness: mean over factors of what all dimensions together tell of it.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def dci(train: Factored, test: Factored) -> DCI:
    """Returns disentanglement, completeness and informativeness, by a forest of extremely randomised trees.

    Source: Eastwood and Williams (2018), https://openreview.net/forum?id=By-7dz-AZ, where informativeness is an error;
    trees as one of the two predictors there, and boosted ones in Locatello et al. (2019).
    """
    (codes, factors), (test_codes, test_factors) = _arrays(train, test)
    importance, told = np.zeros((codes.shape[1], len(factors))), []
    for k, (known, truth) in enumerate(zip(factors, test_factors, strict=True)):
        kind = ExtraTreesClassifier if known.categorical else ExtraTreesRegressor
        forest = kind(n_estimators=20, max_features=None, min_samples_leaf=5, random_state=0).fit(codes, known.values)
        importance[:, k] = forest.feature_importances_
        told.append(_told(truth, forest.predict(test_codes)))
    return DCI(_focus(importance), _focus(importance.T), float(np.mean(told)))


def factor_vae_score(train: Factored, test: Factored) -> float:
    """Returns how often the dimension that varies least in a group of images tells which factor they share.

    From 1 / K, for codes that tell nothing, to 1; 0 if no dimension is used.

    Source: Kim and Mnih (2018), https://arxiv.org/abs/1802.05983. Variances are divided by those over all images.
    """
    parts = _arrays(train, test)
    used = _used(parts[0][0])
    if not used.any():
        return 0.0
    variances = parts[0][0][:, used].var(0)
    tables = []
    for codes, factors in parts:
        generator = np.random.default_rng(0)
        votes = np.zeros((len(factors), used.sum()), int)
        for k, factor in enumerate(factors):
            anchors = generator.integers(len(codes), size=(GROUPS // len(factors), 1)).repeat(GROUP, axis=1)
            groups = codes[_alike(factor, anchors, generator)][..., used]
            votes[k] = np.bincount((groups.var(1, ddof=1) / variances).argmin(1), minlength=used.sum())
        tables.append(votes)
    learned, judged = tables
    return float(judged[learned.argmax(0), np.arange(used.sum())].sum() / judged.sum())


@threadpool_limits.wrap(limits=1, user_api="blas")  # as in `vae_lightning.metrics.probes`
def beta_vae_score(train: Factored, test: Factored) -> float:
    """Returns how often a linear classifier tells which factor is shared from the mean distance of pairs that share it.

    The distance is that in each dimension. From 1 / K, for codes that tell nothing, to 1.

    Source: Higgins et al. (2017), https://openreview.net/forum?id=Sy2fzU9gl.
    """
    parts = _arrays(train, test)
    unit = parts[0][0].std(0).max() or 1.0  # the classifier's regularisation must not depend on the scale of codes
    learned: list[Array] = []
    judged: list[Array] = []
    for (codes, factors), found in zip(parts, (learned, judged), strict=True):
        generator = np.random.default_rng(0)
        for factor in factors:
            anchors = generator.integers(len(codes), size=(GROUPS // len(factors), GROUP))
            pairs = codes[anchors] - codes[_alike(factor, anchors, generator)]
            found.append(np.abs(pairs).mean(1) / unit)
    shared = np.arange(len(factors)).repeat(GROUPS // len(factors))
    classifier = LogisticRegression(max_iter=1000).fit(np.concatenate(learned), shared)
    return float(classifier.score(np.concatenate(judged), shared))


class _Factor(NamedTuple):
    """A factor that varies.

    Attributes:
        values: `(N,)`, whole numbers for a categorical factor.
        classes: `(N,)`, the values made discrete, from 0.
        categorical: whether they have no order.
    """

    values: Array
    classes: Numbers
    categorical: bool


def _arrays(*parts: Factored, least: int = 2) -> Any:
    """The codes `(N, D)` of each part, without what dimensions that the first one does not use tell, and its factors.

    Of the factors only those that vary in all parts.
    """
    chosen = sorted(set.intersection(*(set(varying(part.factors)) for part in parts)))
    if len(chosen) < least:
        raise ValueError(f"factors: at least {least} must vary, got {len(chosen)}")
    found, used = [], None
    for part, factors, categorical in parts:
        codes = part.flatten(1).double().numpy()
        used = _used(codes) if used is None else used
        columns = [_factor(factors[:, k].double().numpy(), bool(categorical[k])) for k in chosen]
        found.append((codes * used, columns))
    return found if len(found) > 1 else found[0]


def _factor(values: Array, categorical: bool) -> _Factor:
    return _Factor(values, _discrete(values, categorical), categorical)


def _discrete(values: Array, categorical: bool = False) -> Numbers:
    known, classes = np.unique(values, return_inverse=True)
    if categorical or len(known) <= BINS:
        return classes
    return np.searchsorted(np.quantile(values, np.arange(1, BINS) / BINS), values, side="right")


def _used(codes: Array) -> NDArray[np.bool_]:
    """Which dimensions of codes `(N, D)` vary: `(D,)`."""
    deviations = codes.std(0)
    return deviations > UNUSED * deviations.max()


def _information(codes: Array, factors: Sequence[_Factor]) -> tuple[Array, Array]:
    """The mutual information of dimensions and factors `(D, K)`, and the entropies of factors `(K,)`, in nats."""
    discrete = [_discrete(column) for column in codes.T]
    entropies = np.array([_entropy(factor.classes) for factor in factors])
    information = [
        [
            _entropy(column) + whole - _entropy(column * (factor.classes.max() + 1) + factor.classes)
            for factor, whole in zip(factors, entropies, strict=True)
        ]
        for column in discrete
    ]
    return np.clip(information, 0, None), entropies


def _entropy(values: Numbers) -> float:
    """The entropy of the distribution that discrete values `(N,)` were drawn from, in nats."""
    _, counts = np.unique(values, return_counts=True)
    return float(entr(counts / len(values)).sum() + (len(counts) - 1) / (2 * len(values)))


def _gap(table: Array) -> Array:
    """The largest of each column `(D, K)` less the second largest, which is 0 where there is only one: `(K,)`."""
    second, first = np.sort(np.vstack([np.zeros_like(table[:1]), table]), axis=0)[-2:]
    return first - second


def _told(truth: _Factor, predicted: Array) -> float:
    """How much a prediction tells of a factor, from 0 to 1."""
    if not truth.categorical:
        return max(0.0, float(r2_score(truth.values, predicted)))
    classes = np.unique(truth.values)
    accuracy = np.mean([(predicted[truth.values == value] == value).mean() for value in classes])
    return max(0.0, float((accuracy - 1 / len(classes)) / (1 - 1 / len(classes))))


def _focus(importance: Array) -> float:
    """How far each row `(R, S)` is concentrated in one column, 0 to 1: a mean that is weighted by the rows' sums."""
    weights = importance.sum(1)
    rows = importance[weights > 0]
    if not len(rows):
        return 0.0
    spread = entropy(rows, axis=1) / math.log(rows.shape[1]) if rows.shape[1] > 1 else np.zeros(len(rows))
    return float(np.average(1 - spread, weights=weights[weights > 0]))


def _alike(factor: _Factor, anchors: Numbers, generator: np.random.Generator) -> Numbers:
    """For each of some images, by number, one that has the same value of a factor, at random."""
    order = factor.classes.argsort(kind="stable")
    counts = np.bincount(factor.classes)
    starts, classes = counts.cumsum() - counts, factor.classes[anchors]
    return order[starts[classes] + (generator.random(anchors.shape) * counts[classes]).astype(int)]
