"""The images that a command names: files, or test images of the run."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ..errors import DataError, UsageError
from ..runs.loading import LoadedRun
from .image_files import read_image

if TYPE_CHECKING:
    from ..data.datamodule import ImageDataModule

__all__ = ["Given", "named_image", "named_images", "named_labels"]


class Given(NamedTuple):
    """Images with their names and, if known, classes.

    Attributes:
        images: `(N, C, H, W)` in [0, 1].
        labels: their classes `(N,)`; None where they are not known.
        names: file names, or numbers of test images.
        classes: names of their classes, empty where not known.
        factors: their factors of variation by name, each `(N,)`; empty where none are known.
    """

    images: Tensor
    labels: Tensor | None
    names: list[str]
    classes: list[str]
    factors: Mapping[str, Tensor] = MappingProxyType({})


def named_images(run: LoadedRun, options: argparse.Namespace) -> Given:
    """Returns the files that were named, or else the first test images."""
    if options.images:
        images = torch.cat([_read(run, path) for path in options.images])
        return Given(images, None, [str(path) for path in options.images], [""] * len(images))
    numbers = _data(run, options.data_root).chosen("test", options.test)
    return _given(run, numbers)


def named_image(run: LoadedRun, name: str, options: argparse.Namespace) -> Given:
    """Returns one image: a file, or the test image of this number."""
    if not name.isdecimal() or Path(name).is_file():
        return Given(_read(run, Path(name)), None, [name], [""])
    count, number = len(_data(run, options.data_root).splits["test"]), int(name)
    if number >= count:
        raise UsageError(f"{name}: there are {count} test images, from 0 to {count - 1}")
    return _given(run, torch.tensor([number]))


def named_labels(run: LoadedRun, options: argparse.Namespace) -> Tensor | None:
    """Returns `options.count` labels: the classes that were named, in turn; None if none were.

    Raises:
        UsageError: if samples of the model do not depend on labels, or there is no such class.
    """
    if not options.label:
        return None
    if not run.model.conditional:
        raise UsageError(f"--label {','.join(options.label)}: samples of {run.name} do not depend on a class")
    try:
        data = _data(run, options.data_root)
    except DataError as error:
        raise UsageError(f"--label: the data, which name the classes, are missing: {error}") from error
    chosen = [_label(name, data.class_names) for name in options.label]
    return torch.tensor(chosen).repeat(-(-options.count // len(chosen)))[: options.count]


def _label(name: str, classes: Sequence[str]) -> int:
    """The label of a class, by its name or, unless that is a name too, by its number."""
    if name in classes:
        return classes.index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    known = ", ".join(f"{label} {other}" if other != str(label) else other for label, other in enumerate(classes))
    raise UsageError(f"--label {name}: must be the name or the number of a class: {known}")


def _data(run: LoadedRun, data_root: str | None) -> "ImageDataModule":
    if data_root:
        run.config["data"]["root"] = data_root
    return run.data


def _given(run: LoadedRun, numbers: Tensor) -> Given:
    """The test images with these numbers."""
    images, labels = run.data.numbered("test", numbers)
    classes = [""] * len(images)
    if labels is not None:
        known = run.data.class_names
        classes = [str(known[label]) if label < len(known) else str(label) for label in labels.tolist()]
    factors = run.data.factors("test", numbers)
    known_factors = {} if factors is None else dict(zip(run.data.factor_names, factors.T, strict=True))
    return Given(images, labels, [f"test {number}" for number in numbers.tolist()], classes, known_factors)


def _read(run: LoadedRun, path: Path) -> Tensor:
    """An image file, fitted, scaled and binarised as the run's own images were."""
    source = run.config["data"].get("source")
    given = source if isinstance(source, dict) else {}
    background, scale = given.get("background"), run.config["data"].get("scale")
    image = read_image(
        path,
        run.image_shape,
        fit="pad" if given.get("fit") == "pad" else "crop",
        background=background if isinstance(background, int) and 0 <= background <= 255 else 255,
    )
    image = image * (255 / scale if isinstance(scale, int | float) and scale > 0 else 1.0)
    binary = run.config["data"].get("binarize") == "dynamic"
    return image.clamp(0, 1).bernoulli(generator=torch.Generator().manual_seed(0)) if binary else image
