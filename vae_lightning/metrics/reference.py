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

VERSION = 5  # of the procedure; part of the file name
IMAGES = 20_000  # maximum number of training and of test images used; of large ones, `examples` gives fewer
SPLITS: tuple[Literal["train"], Literal["test"]] = ("train", "test")
HELD_OUT = 0.2  # of these training images, from which the classifier does not learn


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
        metrics: `classifier_accuracy`, `chance_accuracy` (of the most frequent class), and of pixels
            `knn_accuracy_pixels`, `probe_accuracy_pixels`, `normalised_mutual_information_pixels` and
            `silhouette_pixels`, on test images.
        images: number of test images that the classifier's accuracy was measured on.
        held_out: training images `(N, C, H, W)`, in random order, that the classifier has not learnt from: like the
            test images, they are new to it. On the CPU.
    """

    classifier: quality.Classifier
    metrics: dict[str, float]
    images: int
    held_out: Tensor

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
        probe_images: training and test images, at most, for what is measured of pixels: the same ones as for codes.
        cache: see `vae_lightning.data.sources.cache_folder`.
    """
    known, test = (_labelled(data.examples(name, IMAGES)) for name in SPLITS)
    train, (held_out, _) = _split(known)
    classes = max(len(data.class_names), *(int(labels.max()) + 1 for _, labels in (known, test)))
    file = cache_folder(cache) / f"{_digest(f'{VERSION} {probe_images} {classes}', *known, *test)}.pt"

    def made() -> tuple[quality.Classifier, dict[str, float]]:
        probed = [_labelled(data.examples(name, probe_images)) for name in SPLITS]
        return judge(data.name, train, test, probed, classes, device)

    # Made first, so that it takes the same from torch's random state whether or not there is a file.
    untrained = quality.Classifier(train[0].shape[1:], classes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            found = _read(file, untrained)
            if found is None:
                found = made()
                _write(file, *found)
    except OSError as error:
        log.warning("cannot keep the classifier: %s: %s", error.filename or file, error.strerror)
        found = made()
    classifier, metrics = found
    return Reference(classifier.to(device).eval(), metrics, len(test[0]), held_out)


def judge(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    probed: Sequence[tuple[Tensor, Tensor]],
    classes: int,
    device: torch.device,
) -> tuple[quality.Classifier, dict[str, float]]:
    """Makes the classifier of a data set and its `metrics`; torch's random state is left as it was.

    Args:
        name: of the data set, for the log.
        train: images `(N, C, H, W)` that the classifier learns from, and their labels `(N,)`.
        test: images and labels that its accuracy is measured on.
        probed: training and test images, with labels, for what is measured of pixels.
        classes: number of classes.
        device: to train the classifier on.
    """
    log.info("reference  training a classifier of %s, once, and measuring how its pixels separate the classes …", name)
    (images, labels), (test_images, test_labels) = train, test
    # What is measured afterwards must not depend on whether the reference was in the cache.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(0)
        classifier = quality.train_classifier(images.to(device), labels.to(device), classes)
    in_pixels = [(probes.pixels(images), labels) for images, labels in probed]
    knn, linear = probes.class_accuracies(in_pixels[0], in_pixels[1])
    return classifier, {
        "classifier_accuracy": quality.accuracy(classifier, test_images.to(device), test_labels.to(device)),
        "chance_accuracy": test_labels.bincount().max().item() / len(test_labels),
        "knn_accuracy_pixels": knn,
        "probe_accuracy_pixels": linear,
        **{f"{name}_pixels": value for name, value in probes.clustering(*in_pixels[1]).items()},
    }


def _split(known: tuple[Tensor, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Images and labels to learn from, in their order, and those held out, in random order; the same in every call."""
    images, labels = known
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    learnt, held_out = order.tensor_split([len(order) - int(HELD_OUT * len(order))])
    learnt = learnt.sort().values
    return (images[learnt], labels[learnt]), (images[held_out], labels[held_out])


def _labelled(batch: Batch) -> tuple[Tensor, Tensor]:
    images, labels = batch
    if labels is None:
        raise ValueError("labels: a reference needs them")
    return images, labels


def _digest(settings: str, *tensors: Tensor) -> str:
    digest = hashlib.sha256(settings.encode())
    for tensor in tensors:
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()[:24]


def _read(file: Path, classifier: quality.Classifier) -> tuple[quality.Classifier, dict[str, float]] | None:
    try:
        found = torch.load(file, weights_only=True)
        classifier.load_state_dict(found["classifier"])
        return classifier, {str(name): float(value) for name, value in found["metrics"].items()}
    except FileNotFoundError:
        return None
    except Exception:  # a damaged file can raise almost anything
        log.warning("%s is damaged; making it again", file)
        return None


def _write(file: Path, classifier: quality.Classifier, metrics: dict[str, float]) -> None:
    partial = file.with_suffix(".partial")
    torch.save({"classifier": classifier.cpu().state_dict(), "metrics": metrics}, partial)
    partial.replace(file)
