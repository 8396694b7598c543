"""A data set's own reference: a classifier of its images and how well their pixels separate the classes.

It is the same for all models of a data set, so it is made once and kept in a cache folder.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import torch
from filelock import FileLock
from torch import Tensor

from ..data.batch import Batch
from ..data.sources import cache_folder
from . import probes, quality

__all__ = ["LabelledData", "Reference", "judge", "reference"]

log = logging.getLogger(__name__)

VERSION = 2  # of the procedure; part of the file name
IMAGES = 20_000  # maximum number of training and of test images used; of large ones, `examples` gives fewer


class LabelledData(Protocol):
    """What a reference needs of a data module."""

    name: str
    class_names: Sequence[str]

    def examples(self, name: Literal["train", "test"], count: int) -> Batch:
        """Returns at most `count` labelled images `(N, C, H, W)` in [0, 1], always the same ones."""
        ...


class Reference(NamedTuple):
    """What is known of a data set's own images, by which models are judged.

    Attributes:
        classifier: trained on the training images, in evaluation mode.
        metrics: `classifier_accuracy`, `chance_accuracy` (of the most frequent class), `knn_accuracy_pixels` and
            `probe_accuracy_pixels`, on test images.
        images: number of test images that the classifier's accuracy was measured on.
    """

    classifier: quality.Classifier
    metrics: dict[str, float]
    images: int

    @property
    def at_chance(self) -> bool:
        """Whether the classifier is not significantly better (at 5 %) than naming the most frequent class always."""
        chance = self.metrics["chance_accuracy"]
        return self.metrics["classifier_accuracy"] <= chance + 1.645 * (chance * (1 - chance) / self.images) ** 0.5


@torch.inference_mode(False)  # Lightning tests in that mode, in which nothing can be trained
def reference(data: LabelledData, device: torch.device, probe_images: int, cache: str | None = None) -> Reference:
    """Returns the reference of a data module's images: made once, then read from the cache folder.

    Its file is named by a digest of the images. Several processes may ask at the same time. A damaged file is
    replaced; where the folder cannot be written, the reference is made every time.

    Args:
        data: with labels.
        device: to train and keep the classifier on.
        probe_images: training and test images, at most, for the accuracies among pixels.
        cache: see `vae_lightning.data.sources.cache_folder`.
    """
    train, test = _labelled(data.examples("train", IMAGES)), _labelled(data.examples("test", IMAGES))
    classes = max(len(data.class_names), *(int(labels.max()) + 1 for _, labels in (train, test)))
    file = cache_folder(cache) / f"{_digest(f'{VERSION} {probe_images} {classes}', *train, *test)}.pt"
    # Made first, so that it takes the same from torch's random state whether or not there is a file.
    untrained = quality.Classifier(train[0].shape[1:], classes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            found = _read(file, untrained, len(test[0]))
            if found is None:
                found = judge(data.name, train, test, classes, probe_images, device)
                _write(file, found)
    except OSError as error:
        log.warning("cannot keep the classifier: %s: %s", error.filename or file, error.strerror)
        found = judge(data.name, train, test, classes, probe_images, device)
    return found._replace(classifier=found.classifier.to(device).eval())


def judge(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: int,
    probe_images: int,
    device: torch.device,
) -> Reference:
    """Makes the reference of a data set; torch's random state is left as it was.

    Args:
        name: of the data set, for the log.
        train: images `(N, C, H, W)` that the classifier learns from, and their labels `(N,)`.
        test: images and labels that accuracies are measured on.
        classes: number of classes.
        probe_images: training and test images, at most, for the accuracies among pixels.
        device: to train the classifier on.
    """
    log.info("reference  training a classifier of %s, once, and measuring how its pixels separate the classes …", name)
    (images, labels), (test_images, test_labels) = train, test
    # What is measured afterwards must not depend on whether the reference was in the cache.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        classifier = quality.train_classifier(images.to(device), labels.to(device), classes)
    knn, linear = probes.class_accuracies(
        (probes.pixels(images[:probe_images]), labels[:probe_images]),
        (probes.pixels(test_images[:probe_images]), test_labels[:probe_images]),
    )
    return Reference(
        classifier,
        {
            "classifier_accuracy": quality.accuracy(classifier, test_images.to(device), test_labels.to(device)),
            "chance_accuracy": test_labels.bincount().max().item() / len(test_labels),
            "knn_accuracy_pixels": knn,
            "probe_accuracy_pixels": linear,
        },
        len(test_images),
    )


def _labelled(batch: Batch) -> tuple[Tensor, Tensor]:
    images, labels = batch
    if labels is None:
        raise ValueError("labels: a reference needs them")
    return images, labels


def _digest(settings: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(settings.encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy().data)
    return digest.hexdigest()[:24]


def _read(file: Path, classifier: quality.Classifier, images: int) -> Reference | None:
    try:
        found = torch.load(file, weights_only=True)
        classifier.load_state_dict(found["classifier"])
        return Reference(classifier, {str(name): float(value) for name, value in found["metrics"].items()}, images)
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file can raise almost anything
        log.warning("%s is damaged; making it again", file)
        return None


def _write(file: Path, found: Reference) -> None:
    partial = file.with_suffix(".partial")
    torch.save({"classifier": found.classifier.cpu().state_dict(), "metrics": found.metrics}, partial)
    partial.replace(file)
