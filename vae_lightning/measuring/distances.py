"""How samples and reconstructions compare with real images, in the features of the data set's classifier."""

import logging
from collections.abc import Iterator

import torch
from torch import Tensor

from ..metrics import quality
from ..metrics.support import Support, half_sample_errors, support
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 128  # images, twice the classifier's features, whose covariance is estimated


def measure(subject: Subject) -> Metrics:
    """Returns Fréchet and kernel distances of samples, reconstructions and other real images from test images.

    Of samples and of the other real images also precision, recall, density and coverage. The other real images are
    training images that are new to the classifier, too.
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
    compared = {
        name: (of_test, torch.cat([features(subject.pictures(means)) for means in pictures]))
        for name, pictures in made.items()
    }
    # Of as many images each: a distance falls with their number.
    count = min(len(of_test), len(unseen))
    some = torch.randperm(len(of_test), device="cpu")[:count].to(of_test.device)
    compared["floor"] = of_test[some], unseen[:count]
    found = {name: quality.distances(*pair) for name, pair in compared.items()}
    frechet = {f"frechet_{name}": distances.frechet for name, distances in found.items()}
    kernel = {f"kernel_{name}": distances.kernel for name, distances in found.items()}
    shares = {
        f"{score}{end}": value
        for name, end in [("samples", ""), ("floor", "_real")]
        for score, value in zip(Support._fields, support(*compared[name]), strict=True)
    }
    return frechet | kernel | shares | _errors(compared, subject.sizes.half_samples)


def _errors(compared: dict[str, tuple[Tensor, Tensor]], draws: int) -> Metrics:
    """Standard errors over images of Fréchet distances, and of the other scores of samples."""
    if draws < 2 or min(len(real) for real, _ in compared.values()) < 4:
        return {}
    found = {
        f"frechet_{name}_stderr": half_sample_errors(lambda *sets: [quality.frechet(*sets)], *pair, draws).item()
        for name, pair in compared.items()
    }
    errors = half_sample_errors(support, *compared["samples"], draws)
    return found | {f"{name}_stderr": error for name, error in zip(Support._fields, errors.tolist(), strict=True)}
