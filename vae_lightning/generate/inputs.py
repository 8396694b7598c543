"""The images that a command names: files, or test images of the run."""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import UsageError
from ..runs.loading import LoadedRun
from .image_files import read_image

__all__ = ["Given", "named_image", "named_images"]

ALL = 2**31  # test images


class Given(NamedTuple):
    """Images with their names and, if known, classes.

    Attributes:
        images: `(N, C, H, W)` in [0, 1].
        labels: their classes `(N,)`; None where they are not known.
        names: file names, or numbers of test images.
        classes: names of their classes, empty where not known.
    """

    images: Tensor
    labels: Tensor | None
    names: list[str]
    classes: list[str]


def named_images(run: LoadedRun, options: argparse.Namespace) -> Given:
    """Returns the files that were named, or else the first test images."""
    if options.images:
        images = torch.cat([read_image(path, run.image_shape) for path in options.images])
        return Given(images, None, [str(path) for path in options.images], [""] * len(images))
    return _test_images(run, options.test, options.data_root)


def named_image(run: LoadedRun, name: str, options: argparse.Namespace) -> Given:
    """Returns one image: a file, or the test image of this number."""
    if not name.isdecimal() or Path(name).exists():
        return Given(read_image(Path(name), run.image_shape), None, [name], [""])
    images, labels, names, classes = _test_images(run, ALL, options.data_root)
    number = int(name)
    if number >= len(images):
        raise UsageError(f"{name}: there are {len(images)} test images, from 0 to {len(images) - 1}")
    label = None if labels is None else labels[number : number + 1]
    return Given(images[number : number + 1], label, [names[number]], [classes[number]])


def _test_images(run: LoadedRun, count: int, data_root: str | None) -> Given:
    if data_root:
        run.config["data"]["root"] = data_root
    images, labels = run.test_images(count)
    classes = [""] * len(images)
    if labels is not None:
        known = run.data.class_names
        classes = [str(known[label]) if label < len(known) else str(label) for label in labels.tolist()]
    return Given(images, labels, [f"test {number}" for number in range(len(images))], classes)
