"""Whether the model copies: how far its samples are from the nearest training image, beside images it has never seen.

Distances are between pixels: what is copied is pixels, and no classifier that has learnt from the training images is
asked. A mean of p(x|z) is smoother than an image, and nearer to any image for that. So are reconstructions of test
images, which no model can have copied; they are the control.
"""

import logging

import torch
from torch import Tensor

from ..metrics import probes, quality
from .subject import Metrics, Subject

__all__ = ["measure"]

log = logging.getLogger(__name__)

IMAGES = 100  # samples and test images: a median of them is known to about 2 %
SHOWN = 20


def measure(subject: Subject) -> Metrics:
    """Returns the distance of samples, and of reconstructions, from the nearest training image.

    It is the median over 100 of them, in units of the median for test images. All training images should take part: of
    a sample's original that is left out, nothing is seen.
    """
    if not subject.sizes.copy_images:
        return {}
    with subject.progress.step("nearest training images"):
        return _measured(subject)


def _measured(subject: Subject) -> Metrics:
    model = subject.model
    real = subject.examples("test", IMAGES).on(model.device)
    training = subject.examples("train", subject.sizes.copy_images).images
    pixels = probes.pixels(training).to(model.device)
    samples = subject.pictures(model.sample(len(real.images), real.labels))
    reconstructions = subject.pictures(model.reconstruct(*real))
    unit = _distances(real.images, pixels).median()
    if not unit:
        log.info("measured   most test images are training images, too: distances of copies are left out")
        return {}
    distances, numbers = quality.nearest(probes.pixels(samples), pixels)
    # From the nearest to the farthest.
    shown = distances.argsort().cpu()[torch.linspace(0, len(samples) - 1, min(SHOWN, len(samples))).round().long()]
    subject.arrays |= {
        "copied_samples": samples.cpu()[shown],
        "copied_images": training[numbers.cpu()[shown]],
        "copied_distances": (distances / unit).cpu()[shown],
    }
    return {
        "copy_distance": (distances.median() / unit).item(),
        "copy_distance_reconstructions": (_distances(reconstructions, pixels).median() / unit).item(),
    }


def _distances(images: Tensor, pixels: Tensor) -> Tensor:
    return quality.nearest(probes.pixels(images), pixels).distances
