"""The parts of the rate: what codes tell of their images, and how far all codes together are from the prior."""

import logging

from ..data.batch import Batch
from ..metrics.information import rate_parts
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 100  # images: a lower bound of at most log 100 = 4.6 nats


def measure(subject: Subject) -> Metrics:
    """Returns bounds of the parts of the rate on test images, where the prior is the same for all of them."""
    if not subject.sizes.rate_images or not subject.model.has_bound:
        return {}
    with subject.progress.step("parts of the rate"):
        return _measured(subject)


def _measured(subject: Subject) -> Metrics:
    model = subject.model
    images, labels = subject.examples("test", subject.sizes.rate_images).on(model.device)
    prior = model.prior_distribution(labels)
    if prior.batch_shape:
        log.info("measured   the prior depends on the label: the parts of the rate are left out")
        return {}
    # Every second image is in one half, since the images may be in the order of their classes.
    halves = [
        [model.encode(*part) for part in parts(Batch(images[start::2], None if labels is None else labels[start::2]))]
        for start in (0, 1)
    ]
    found = rate_parts(halves, prior, euclidean=model.latent_space.unbounded)
    if found:
        subject.note_if_few("parts of the rate", len(images), ENOUGH)
    elif len(images) > 1:
        log.info(
            "measured   no density at the codes of other images, or a slow one: the parts of the rate are left out"
        )
    return found
