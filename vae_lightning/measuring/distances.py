"""How close samples and reconstructions come to real images, in the features of the data set's classifier."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from ..evaluation import quality
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 128  # images, twice the classifier's features, whose covariance is estimated


def measure(subject: Subject) -> Metrics:
    """Returns Fréchet and kernel distances of samples, reconstructions and other real images from test images."""
    if not subject.sizes.quality_images or not subject.has_classes:
        return {}
    known = subject.reference
    if known.at_chance:
        log.info(
            "measured   Fréchet and kernel distances are left out: the classifier that compares images of %s is "
            "right about %.3f of them, no better than chance, %.3f",
            subject.data.name,
            known.metrics["classifier_accuracy"],
            known.metrics["chance_accuracy"],
        )
        return {}
    with subject.progress.step("Fréchet and kernel distances"):
        return _measured(subject, known.classifier)


def _measured(subject: Subject, classifier: quality.Classifier) -> Metrics:
    model = subject.model
    real, train = (
        subject.on_device(subject.examples(name, subject.sizes.quality_images)) for name in ("test", "train")
    )
    if min(len(real.images), len(train.images)) < 2:
        return {}
    subject.note_if_few("Fréchet and kernel distances", len(real.images), ENOUGH)
    made: dict[str, Iterator[Tensor]] = {  # never all at once
        "samples": (model.sample(len(images), labels) for images, labels in parts(real)),
        "reconstructions": (model.reconstruct(*part) for part in parts(real)),
        "floor": iter([train.images[: len(real.images)]]),
    }
    features = classifier.features(real.images)
    metrics: Metrics = {}
    for name, pictures in made.items():
        # A likelihood's mean can leave the range of pixel values.
        others = torch.cat([classifier.features(images.clamp(0, 1)) for images in pictures])
        found = quality.distances(features, others)
        metrics |= {f"frechet_{name}": found.frechet, f"kernel_{name}": found.kernel}
    return metrics
