"""What lies between two codes."""

from itertools import pairwise

import torch

from ..evaluation import codes, geometry
from ..posteriors import point
from .subject import Metrics, Subject

__all__ = ["measure"]

IMAGES = 200  # between which paths are decoded


def measure(subject: Subject, steps: int = 16) -> Metrics:
    """Returns the unevenness of decoded paths from one test image's code to the next's."""
    if not subject.sizes.quality_images:
        return {}
    with subject.progress.step("paths between images"):
        model = subject.model
        images, labels = subject.on_device(subject.examples("test", subject.sizes.quality_images))
        images, labels = images[:IMAGES], None if labels is None else labels[:IMAGES]
        if len(images) < 2:
            return {}
        ends = point(model.encode(images, labels))
        between = torch.cat([model.latent_space.interpolate(*pair, steps) for pair in pairwise(ends)])
        classes = None if labels is None else labels[:-1].repeat_interleave(steps)
        pictures = codes.decode_all(model, between, images.shape[1:], classes).unflatten(0, (-1, steps))
        return {"path_unevenness": geometry.path_unevenness(pictures).mean().item()}
