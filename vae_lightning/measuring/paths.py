"""What lies between two codes: whether a path of images is even, and whether the picture half way is one of the data's.

Evenness alone is no merit: a cross-fade of pixels is even, and so is whatever a decoder makes before it is trained.
Therefore the picture half way is held against real images, beside these two as controls.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor

from ..metrics import codes, geometry, quality
from ..posteriors import point
from ..vae import VAE
from .subject import Metrics, Subject

__all__ = ["measure"]

IMAGES = 200  # between which paths are decoded
CELLS, EXTENT = 8, 8.0  # of the chapter's lattice, as it is drawn by default
APART = 4  # cells between which paths over it are decoded
STEPS = 16


class _Pairs(NamedTuple):
    """Two codes for each path `(N, latent_dim)`, and the class of each, if known, `(N,)`."""

    starts: Tensor
    ends: Tensor
    labels: Tensor | None


def measure(subject: Subject) -> Metrics:
    """Returns metrics of the paths from one test image's code to the next's, and over a lattice if there is one.

    `path_unevenness` is the longest of 15 decoded steps as a share of the path. `halfway_distance` is the distance of
    the picture half way from the nearest real image, in the features of the data set's classifier and in units of the
    mean distance of test images; `…_crossfade` that of the mean of the pictures at both ends, and `…_untrained` that of
    the picture half way from a decoder before training. `…_lattice` are the same over the chapter's lattice.
    """
    if not subject.sizes.quality_images:
        return {}
    with subject.progress.step("paths between images"):
        images, labels = subject.examples("test", min(IMAGES, subject.sizes.quality_images)).on(subject.model.device)
        if len(images) < 2:
            return {}
        # The images are in the order of the data, which may be that of classes.
        order = torch.randperm(len(images), device="cpu").to(images.device)
        images, labels = images[order], None if labels is None else labels[order]
        points = point(subject.model.encode(images, labels))
        sets = {"": _Pairs(points[:-1], points[1:], None if labels is None else labels[:-1])}
        # A lattice of a conditional model is one for each class.
        if subject.model.latent_space.axes == 2 and not subject.model.conditional:
            sets["_lattice"] = _over_lattice(subject.model)
        metrics: Metrics = {}
        for name, pairs in sets.items():
            found = _between(subject, pairs, images.shape[1:])
            metrics |= {f"{metric}{name}": value for metric, value in found.items()}
        return metrics


def _over_lattice(model: VAE) -> _Pairs:
    """The cells of a lattice that are some cells apart in a row or a column."""
    space = model.latent_space
    cells = space.lattice(CELLS, EXTENT if space.unbounded else None).codes.to(model.device)
    starts, ends = (
        torch.cat([rows.flatten(0, 1), columns.flatten(0, 1)])
        for rows, columns in ((cells[:, :-APART], cells[:-APART]), (cells[:, APART:], cells[APART:]))
    )
    return _Pairs(starts, ends, None)


def _between(subject: Subject, pairs: _Pairs, image_shape: torch.Size) -> Metrics:
    model, space = subject.model, subject.model.latent_space

    def decoded(steps: int) -> Tensor:
        """Pictures `(N, steps, C, H, W)` on the paths."""
        paths = space.interpolate(pairs.starts, pairs.ends, steps)
        labels = None if pairs.labels is None else pairs.labels.repeat_interleave(steps)
        return codes.decode_all(model, paths.flatten(0, 1), image_shape, labels).unflatten(0, (-1, steps))

    pictures = decoded(STEPS)
    metrics = {"path_unevenness": geometry.path_unevenness(pictures).mean().item()}
    if subject.has_features:
        halfway = {"": decoded(3)[:, 1], "_crossfade": pictures[:, [0, -1]].mean(1)}
        with _untrained(model):
            halfway["_untrained"] = decoded(3)[:, 1]
        metrics |= {f"halfway_distance{name}": _distance(subject, means) for name, means in halfway.items()}
    return metrics


def _distance(subject: Subject, means: Tensor) -> float:
    """The mean distance of pictures from the nearest real image, in units of that of test images."""
    test, unseen = subject.features
    found = subject.reference.classifier.features(subject.pictures(means))
    return (quality.nearest(found, unseen).distances.mean() / quality.nearest(test, unseen).distances.mean()).item()


@contextmanager
def _untrained(model: VAE) -> Iterator[None]:
    """A context in which the model has a decoder whose layers are as before training: see `reset_parameters`."""
    trained = model.decoder
    model.decoder = deepcopy(trained)
    # The parts of a module first, whose parameters it may initialise in its own way.
    model.decoder.apply(lambda module: getattr(module, "reset_parameters", lambda: None)())
    try:
        yield
    finally:
        model.decoder = trained
