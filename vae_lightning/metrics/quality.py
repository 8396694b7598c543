"""How close samples and reconstructions come to real images: distances between features of a small classifier.

The classifier is trained on the data set's own classes. (The usual one was trained on colour photographs; its
features of hiragana mean little.) Distances are therefore comparable between models of one data set, not between
data sets.
"""

from collections.abc import Sequence
from itertools import islice
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from ..data.sizes import at_once

__all__ = [
    "Classifier", "Distances", "Nearest", "accuracy", "are_binary", "distances", "frechet", "nearest", "pictures",
    "train_classifier",
]  # fmt: skip

# Nothing is gathered: in a training on several devices, one process has all images.
ALONE: Any = {"sync_on_compute": False}


class Classifier(nn.Module):
    """Three strided convolutions, 64 features, and a linear map to the classes.

    Args:
        image_shape: `(C, H, W)`.
        classes: number of classes.
    """

    def __init__(self, image_shape: Sequence[int], classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential()
        before = image_shape[0]
        for after in (16, 32, 128):
            self.trunk += nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.ReLU())
            before = after
        self.trunk += nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * before, 64))
        self.head = nn.Sequential(nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, classes))

    def features(self, images: Tensor) -> Tensor:
        """Returns features `(N, 64)` of images `(N, C, H, W)` in [0, 1], computed in parts, without gradients."""
        with torch.no_grad():
            return torch.cat([self.trunk(part) for part in images.split(at_once(images.shape[1:]))])

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits `(B, classes)` of images `(B, C, H, W)`."""
        return self.head(self.trunk(x))


def are_binary(images: Tensor) -> bool:
    """Returns whether all pixels are 0 or 1."""
    return bool(((images == 0) | (images == 1)).all())


def pictures(means: Tensor, binary: bool) -> Tensor:
    """Returns means of p(x|z), or of two images, as images of the data's kind, so that like is compared with like.

    Grey values are only clamped to [0, 1]: a likelihood's mean can leave that range. If the data are binary, each
    pixel is drawn, as 1 with its mean as the probability.
    """
    means = means.clamp(0, 1)
    return means.bernoulli() if binary else means


@torch.enable_grad()
def train_classifier(
    images: Tensor,
    labels: Tensor,
    classes: int,
    epochs: int = 6,
    batch_size: int = 128,
    least_steps: int = 60,
    most_steps: int = 400,
) -> Classifier:
    """Returns a classifier of images `(N, C, H, W)` in [0, 1] with labels `(N,)`, in evaluation mode, on their device.

    Few images are gone through more often, because a handful of steps would leave the classifier at chance, and many
    less often, because more steps gain little. Draws from torch's random state.
    """
    device = images.device
    classifier = Classifier(images.shape[1:], classes).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3)
    batches = -(-len(images) // batch_size)
    steps = min(max(epochs * batches, least_steps), most_steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=max(steps, 2))
    shuffled = (part for _ in range(steps) for part in torch.randperm(len(images)).to(device).split(batch_size))
    for chosen in islice(shuffled, steps):
        if len(chosen) > 1:  # batch norm needs two
            optimizer.zero_grad()
            functional.cross_entropy(classifier(images[chosen]), labels[chosen]).backward()
            optimizer.step()
            schedule.step()
    return classifier.eval()


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """Returns the share of images `(N, C, H, W)` that the classifier gives their label `(N,)`."""
    found = torch.cat([classifier(part).argmax(1) for part in images.split(at_once(images.shape[1:]))])
    return (found == labels).cpu().double().mean().item()


class Distances(NamedTuple):
    """Between two sets of features.

    Attributes:
        frechet: Fréchet distance of the Gaussians with their means and covariances, squared as is usual. Heusel et al.
            (2017), https://arxiv.org/abs/1706.08500. It falls with the number of images: compare equal numbers.
        kernel: squared maximum mean discrepancy with a cubic kernel, unbiased. Bińkowski et al. (2018),
            https://arxiv.org/abs/1801.01401.
    """

    frechet: float
    kernel: float


def distances(real: Tensor, other: Tensor) -> Distances:
    """Returns the distances of features `(N, F)` and `(M, F)`, at least two each.

    The kernel's is of all features, if there are as many of both and at most 2,000: many small subsets, as is usual,
    take longer and vary more. Else it is the mean of as many subsets as would cover them, from torch's random state.
    """
    size = min(2000, len(real), len(other))
    subsets = ceil(max(len(real), len(other)) / size)
    kernel = KernelInceptionDistance(_Features(real.shape[1]), subsets=subsets, subset_size=size, **ALONE)
    return Distances(frechet(real, other), _compared(kernel, real, other)[0].item())


def frechet(real: Tensor, other: Tensor) -> float:
    """Returns the Fréchet distance of features `(N, F)` and `(M, F)`, at least two each; see `Distances`."""
    metric = FrechetInceptionDistance(_Features(real.shape[1]), **ALONE).set_dtype(torch.float64)
    return _compared(metric, real, other).item()


def _compared(metric: Any, real: Tensor, other: Tensor) -> Any:
    metric.update(real.cpu().double(), real=True)
    metric.update(other.cpu().double(), real=False)
    return metric.compute()


class Nearest(NamedTuple):
    """Of each of N vectors, the nearest of M others.

    Attributes:
        distances: Euclidean `(N,)`.
        numbers: which of the others `(N,)`.
    """

    distances: Tensor
    numbers: Tensor


def nearest(features: Tensor, real: Tensor) -> Nearest:
    """Returns the nearest of M vectors `(M, F)` to each of N `(N, F)`."""
    indices = torch.cat([torch.cdist(part, real).argmin(1) for part in features.split(500)])
    # Those of cdist are rounded: it subtracts products.
    return Nearest((features - real[indices]).norm(dim=1), indices)


class _Features(nn.Module):
    """Passes on features that are already computed."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
