"""What a measurement is given: a model, its test images, and how much to measure."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.sizes import at_once
from ..metrics import quality
from ..metrics.reference import Reference, reference
from ..posteriors import point
from ..progress import Progress
from ..vae import VAE

__all__ = ["Features", "Metrics", "Sizes", "Subject", "parts"]

log = logging.getLogger(__name__)

Metrics = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """How much is measured; the options of `vae_lightning.callbacks.Measurements`.

    Raises:
        ValueError: for a negative number.
    """

    bound_samples: int = 50
    bound_images: int = 200
    training_images: int = 2000
    rate_images: int = 2000
    probe_images: int = 5000
    quality_images: int = 2000
    factor_images: int = 2000
    plane_points: int = 1000
    tsne: bool = True
    copy_images: int = 60_000
    half_samples: int = 0
    annealed_images: int = 0
    annealed_chains: int = 16
    annealed_steps: int = 500

    def __post_init__(self) -> None:
        for option in fields(self):
            if (value := getattr(self, option.name)) < 0:
                raise ValueError(f"{option.name}: must be a whole number of at least 0, got {value}")


class Features(NamedTuple):
    """Features of real images, none of which the classifier has learnt from.

    Attributes:
        test: of test images `(N, F)`, at most `quality_images`.
        unseen: of training images that were held out from the classifier `(M, F)`, at most `quality_images`.
    """

    test: Tensor
    unseen: Tensor


@dataclass
class Subject:
    """A model and its test images.

    Attributes:
        model: in evaluation mode.
        data: the data module, with `name`, `class_names` and `examples(name, count)`.
        test_batches: yields the test images once, as a test step receives them.
        batches: number of them.
        sizes: how much is measured.
        progress: shows the steps of a measurement.
        cache: folder of references; see `vae_lightning.data.sources.cache_folder`.
        few: notes on metrics that were measured on too few images to mean much.
        arrays: what figures are drawn from, by name, which measurements add; they are saved with the other figures'.
    """

    model: VAE
    data: Any
    test_batches: Callable[[], Iterator[Batch]]
    batches: int
    sizes: Sizes
    progress: Progress
    cache: str | None = None
    few: list[str] = field(default_factory=list)
    arrays: dict[str, Tensor] = field(default_factory=dict)

    def examples(self, name: str, count: int) -> Batch:
        """Returns at most `count` images of the split `train` or `test`, the same in every run, on the CPU."""
        return Batch(*self.data.examples(name, count))

    def codes(self, batch: Batch) -> Tensor:
        """Returns the codes `(N, latent_dim)` of images, on the CPU."""
        return torch.cat([point(self.model.encode(*part.on(self.model.device))).cpu() for part in parts(batch)])

    def note_if_few(self, what: str, images: int, enough: int) -> None:
        """Notes that metrics are rough if they come from fewer than so many test images."""
        if images < enough:
            self.few.append(f"{what} from {images} test images (rough below {enough})")

    @cached_property
    def binary(self) -> bool:
        """Whether the pixels of the data are 0 or 1."""
        return quality.are_binary(self.examples("test", 100).images)

    def pictures(self, means: Tensor) -> Tensor:
        """Returns means of p(x|z), or of two images, as images of the data's kind; see `quality.pictures`."""
        return quality.pictures(means, self.binary)

    @cached_property
    def has_classes(self) -> bool:
        """Whether training and test images have labels of at least two classes; a line says if they have not."""
        if lack := self._lack_of_classes():
            log.info("measured   %s: class accuracies and Fréchet distances are left out", lack)
        return not lack

    def _lack_of_classes(self) -> str:
        if any(self.examples(name, 1).labels is None for name in ("train", "test")):
            return f"no labels in {self.data.name}"
        count = max(self.sizes.probe_images, self.sizes.quality_images)
        for name, images in (("train", "training"), ("test", "test")):
            labels = self.examples(name, count).labels
            if labels is None or len(labels.unique()) < 2:
                return f"only one class among the {images} images of {self.data.name}"
        return ""

    @cached_property
    def reference(self) -> Reference:
        """The classifier of the data set, and the class accuracies of its pixels; only where there are classes."""
        with self.progress.step(f"reference of {self.data.name}"):
            return reference(self.data, self.model.device, self.sizes.probe_images or 5000, self.cache)

    @property
    def has_features(self) -> bool:
        """Whether a classifier of the data set can compare images: of classes that it can tell, with some held out."""
        return self.has_classes and not self.reference.at_chance and len(self.reference.held_out) > 0

    @cached_property
    def features(self) -> Features:
        """The features of real images; only where `has_features`."""
        classifier, count = self.reference.classifier, self.sizes.quality_images
        test, unseen = self.examples("test", count).images, self.reference.held_out[:count]
        return Features(*(classifier.features(images.to(self.model.device)) for images in (test, unseen)))


def parts(batch: Batch, codes: int = 1) -> Iterator[Batch]:
    """Yields images and labels in parts that can pass through a model at once, with so many codes for each image."""
    size = max(1, at_once(batch.images.shape[1:]) // codes)
    for start in range(0, len(batch.images), size):
        images, labels = batch
        yield Batch(images[start : start + size], None if labels is None else labels[start : start + size])
