"""How close samples and reconstructions come to real images, in the features of the data set's classifier."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from ..metrics import quality
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 128  # images, twice the classifier's features, whose covariance is estimated


def measure(subject: Subject) -> Metrics:
    """Returns Fréchet and kernel distances of samples, reconstructions and other real images from test images.

    The other real images are training images that are new to the classifier, too.
    """
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
        return _measured(subject)


def _measured(subject: Subject) -> Metrics:
    model, features = subject.model, subject.reference.classifier.features
    real = subject.examples("test", subject.sizes.quality_images).on(model.device)
    of_test, unseen = subject.features
    if min(len(of_test), len(unseen)) < 2:
        return {}
    subject.note_if_few("Fréchet and kernel distances", len(of_test), ENOUGH)
    made: dict[str, Iterator[Tensor]] = {  # never all at once
        "samples": (model.sample(len(images), labels) for images, labels in parts(real)),
        "reconstructions": (model.reconstruct(*part) for part in parts(real)),
    }
    found = {
        name: quality.distances(of_test, torch.cat([features(subject.pictures(means)) for means in pictures]))
        for name, pictures in made.items()
    }
    # Of as many images each: a distance falls with their number.
    count = min(len(of_test), len(unseen))
    some = torch.randperm(len(of_test), device="cpu")[:count].to(of_test.device)
    found["floor"] = quality.distances(of_test[some], unseen[:count])
    frechet = {f"frechet_{name}": distances.frechet for name, distances in found.items()}
    return frechet | {f"kernel_{name}": distances.kernel for name, distances in found.items()}
