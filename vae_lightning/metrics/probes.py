"""How well codes separate classes, how far these are clusters, and how faithful a picture of some thousand codes is."""

import warnings
from typing import NamedTuple

import numpy as np
import torch
from joblib import parallel_config
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import TSNE, trustworthiness
from sklearn.metrics import normalized_mutual_info_score, silhouette_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits
from torch import Tensor

from ..data.sizes import shrunk

__all__ = ["Faithfulness", "class_accuracies", "clustering", "faithfulness", "knn_accuracy", "pixels", "tsne"]

FOLDS = 3
STARTS = 3  # of k-means
SILHOUETTES = 2000  # points
TSNE_STEPS = 500  # with twice as many, trustworthiness and continuity differ by less than 0.003
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: the inverse of the penalty on weights; 10 gains nothing


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


@threadpool_limits.wrap(limits=1, user_api="blas")  # several threads take many times as long for products so small
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
    with warnings.catch_warnings(), parallel_config("threading", n_jobs=torch.get_num_threads()):
        warnings.filterwarnings("ignore", "The least populated class", UserWarning)
        warnings.simplefilter("ignore", ConvergenceWarning)  # of weak penalties, where dimensions say the same
        linear = float(classifier.fit(points, labels).score(test_points, test_labels))
    return knn_accuracy(train, test), linear


def clustering(points: Tensor, labels: Tensor) -> dict[str, float]:
    """Returns how far the classes `(N,)` of points `(N, D)` are clusters; nothing of a single class.

    `normalised_mutual_information`
        of the classes and as many clusters, found by k-means without labels: from 0 to 1, where the clusters are the
        classes. By chance it is above 0 where points are few. Strehl and Ghosh (2002),
        https://jmlr.org/papers/v3/strehl02a.html, but divided by the mean of the entropies.
    `silhouette`
        the mean of (b − a) / max(a, b) over points, where a is the mean distance of the others of its class, and b that
        of the nearest other class: from −1 to 1, where classes are tight and far apart. Of 2,000 points at most.
        Rousseeuw (1987), https://doi.org/10.1016/0377-0427(87)90125-7.
    """
    found, classes = _arrays((points, labels))
    count = len(np.unique(classes))
    if count == 1:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer distinct points than clusters
        clusters = KMeans(count, n_init=STARTS, random_state=0).fit_predict(found)
    metrics = {"normalised_mutual_information": float(normalized_mutual_info_score(classes, clusters))}
    # Evenly spaced, since points may be in the order of their classes.
    some = np.linspace(0, len(found) - 1, min(SILHOUETTES, len(found))).astype(int)
    if 1 < len(np.unique(classes[some])) < len(some):
        metrics["silhouette"] = float(silhouette_score(found[some], classes[some]))
    return metrics


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
    method = TSNE(perplexity=perplexity, init="pca", max_iter=TSNE_STEPS, random_state=seed)
    return points.new_tensor(method.fit_transform(points.float().numpy()))


def _arrays(pair: tuple[Tensor, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    return pair[0].flatten(1).float().numpy(), pair[1].numpy()
