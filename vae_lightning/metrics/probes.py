"""How well codes separate the classes, and how faithful a picture of codes is; for some thousands of points."""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, trustworthiness
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ..data.sizes import shrunk

__all__ = ["Faithfulness", "class_accuracies", "faithfulness", "knn_accuracy", "pixels", "tsne"]

FOLDS = 3
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C: the inverse of the penalty on weights


def knn_accuracy(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], neighbours: int = 10) -> float:
    """Returns the share of test points whose class is that of most of their nearest training points.

    Args:
        train: points `(N, D)` and classes `(N,)`.
        test: points `(M, D)` and classes `(M,)`.
        neighbours: number of nearest training points; all of them where there are fewer.
    """
    (points, labels), (test_points, test_labels) = (_arrays(pair) for pair in (train, test))
    classifier = KNeighborsClassifier(n_neighbors=min(neighbours, len(points)))
    return float(classifier.fit(points, labels).score(test_points, test_labels))


def pixels(images: Tensor) -> Tensor:
    """Returns the pixels `(N, D)` of images `(N, C, H, W)`, of large ones averaged to at most 32 a side."""
    return shrunk(images, 32).flatten(1)


def class_accuracies(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> tuple[float, float]:
    """Returns the test accuracies of a nearest-neighbour vote and of a logistic regression on standardised points.

    The penalty of the regression is the one that is best in threefold cross-validation on the training points.

    Args:
        train: points `(N, D)` and classes `(N,)`.
        test: points `(M, D)` and classes `(M,)`.
    """
    (points, labels), (test_points, test_labels) = (_arrays(pair) for pair in (train, test))
    members = np.unique(labels, return_counts=True)[1]
    if len(members) == 1:  # nothing to separate
        return knn_accuracy(train, test), float((test_labels == labels[0]).mean())
    classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200, tol=1e-3))
    if np.sort(members)[-2] >= FOLDS:  # else two classes cannot be in every fold
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        classifier = GridSearchCV(classifier, {"logisticregression__C": PENALTIES}, cv=folds)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        linear = float(classifier.fit(points, labels).score(test_points, test_labels))
    return knn_accuracy(train, test), linear


class Faithfulness(NamedTuple):
    """How well a picture keeps neighbourhoods, both from 0 to 1.

    Attributes:
        trustworthiness: 1 if neighbours in the picture are neighbours in truth.
        continuity: 1 if neighbours in truth are neighbours in the picture.
    """

    trustworthiness: float
    continuity: float


def faithfulness(points: Tensor, picture: Tensor, neighbours: int = 12) -> Faithfulness:
    """Returns the faithfulness of a picture `(N, 2)` or `(N, 1)` of points `(N, D)`, at least 3.

    Args:
        points: `(N, D)`.
        picture: of the points.
        neighbours: size of the neighbourhoods that are compared.

    Source: Venna and Kaski (2006), https://doi.org/10.1016/j.neunet.2006.05.014.
    """
    neighbours = max(1, min(neighbours, (len(points) - 1) // 2))
    truth, shown = (tensor.flatten(1).double().numpy() for tensor in (points, picture))
    return Faithfulness(
        float(trustworthiness(truth, shown, n_neighbors=neighbours)),
        float(trustworthiness(shown, truth, n_neighbors=neighbours)),
    )


def tsne(points: Tensor, seed: int = 0) -> Tensor:
    """Returns a t-SNE picture `(N, 2)` of points `(N, D)`, at least 3, from their principal components.

    Source: van der Maaten and Hinton (2008), https://jmlr.org/papers/v9/vandermaaten08a.html.
    """
    perplexity = min(30.0, (len(points) - 1) / 3)
    picture = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(points.float().numpy())
    return points.new_tensor(picture)


def _arrays(pair: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return pair[0].flatten(1).float().numpy(), pair[1].numpy()
