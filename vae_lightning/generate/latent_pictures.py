"""Pictures of the latent space: decoded paths between images, traversals of single dimensions, lattices."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..latent_spaces import great_circle
from ..plots import grey_values, tile
from ..runs.loading import LoadedRun
from .image_files import write_gif, write_images
from .images import decode, encode
from .inputs import named_image

if TYPE_CHECKING:
    from ..vae import VAE

__all__ = ["interpolate", "lattice", "traverse", "write_interpolation", "write_lattice", "write_traversal"]

MOST_DIMENSIONS = 10  # that are traversed unless they are named


def interpolate(
    model: "VAE", images: Tensor, labels: Tensor | None = None, steps: int = 16, spherical: bool = False
) -> Tensor:
    """Returns pictures along the path between the codes of two images: `(steps, C, H, W)`, uint8.

    Args:
        model: on any device.
        images: both ends, `(2, C, H, W)` in [0, 1].
        labels: their classes `(2,)`; where known, each picture is decoded with that of the nearer end.
        steps: number of pictures, both ends included.
        spherical: whether the path is a great circle instead of the latent space's own.
    """
    start, end = encode(model, images, labels).points
    codes = (great_circle if spherical else model.latent_space.interpolate)(start, end, steps)
    nearer = (torch.arange(steps) >= steps / 2).long()
    return decode(model, codes, None if labels is None else labels.cpu()[nearer])


def traverse(
    model: "VAE", code: Tensor, dimensions: Sequence[int], values: Tensor, label: Tensor | None = None
) -> Tensor:
    """Returns pictures `(dimensions, values, C, H, W)`, uint8: one dimension of a code at a time is set to each value.

    Args:
        model: on any device.
        code: `(latent_dim,)`.
        dimensions: which to change, counted from 0.
        values: `(values,)`.
        label: class `(1,)` with which all are decoded, where it is known.
    """
    codes = model.latent_space.traverse(code, torch.tensor(dimensions), values)
    labels = None if label is None else label.expand(len(dimensions) * len(values))
    return decode(model, codes.flatten(0, 1), labels).unflatten(0, codes.shape[:2])


def lattice(model: "VAE", cells: int = 20, extent: float | None = None, quantiles: bool = False) -> Tensor:
    """Returns decoded codes on a lattice over the whole latent space: `(rows, cells, C, H, W)`, uint8.

    Args:
        model: with a latent space of one or two dimensions, which gives one row or as many as there are cells.
        cells: along each side.
        extent: the lattice reaches from −extent to extent; the second coordinate falls from row to row. None for what
            the latent space usually shows.
        quantiles: whether steps are equally likely under the space's plainest prior, instead of equally long.

    Raises:
        UsageError: if the latent space has more dimensions, or no extent, or both extent and quantiles are given.
    """
    space = model.latent_space
    if not space.axes:
        raise UsageError(f"a lattice needs a latent space of 1 or 2 dimensions, not {model.latent_dim}; try traverse")
    if quantiles and extent is not None:
        raise UsageError(f"--extent {extent:g}: steps of --quantiles are equally likely; leave one of the two out")
    codes = (space.quantiles(cells) if quantiles else space.lattice(cells, extent)).codes
    return decode(model, codes.flatten(0, 1)).unflatten(0, codes.shape[:2])


def write_interpolation(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes the pictures between two images, in one row or in turn."""
    torch.manual_seed(options.seed)
    start, end = (named_image(run, name, options) for name in (options.start, options.end))
    labels = None if start.labels is None or end.labels is None else torch.cat([start.labels, end.labels])
    ends = torch.cat([start.images, end.images])
    pictures = interpolate(run.model, ends, labels, options.steps, options.spherical)
    return {output: write_images(pictures, output, len(pictures), "pictures from one image to the other")}


def write_traversal(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes traversals: a row of the picture for each dimension, or all dimensions side by side in each frame."""
    torch.manual_seed(options.seed)
    dimensions = _dimensions(options.dimensions, run.model.latent_dim) if options.dimensions else _most_used(run)
    code, label = run.model.latent_space.origin, None
    if options.image is not None:
        image = named_image(run, options.image, options)
        code, label = encode(run.model, image.images, image.labels).points[0], image.labels
    values = torch.linspace(-options.extent, options.extent, options.steps)
    rows = traverse(run.model, code, dimensions, values, label)
    listed = ", ".join(str(dimension + 1) for dimension in dimensions)
    what = f"pictures: dimensions {listed} from {-options.extent:g} to {options.extent:g}"
    if output.suffix == ".gif":
        columns = math.ceil(len(dimensions) ** 0.5)
        frames = torch.stack([grey_values(tile(frame / 255, columns)) for frame in rows.transpose(0, 1)])
        return {output: write_gif(frames, output, what)}
    return {output: write_images(rows.flatten(0, 1), output, options.steps, what)}


def write_lattice(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes a lattice over the latent space."""
    rows = lattice(run.model, options.cells, options.extent, options.quantiles)
    what = "decoded codes; the second coordinate rises from bottom to top"
    return {output: write_images(rows.flatten(0, 1), output, options.cells, what)}


def _dimensions(text: str, latent_dim: int) -> list[int]:
    try:
        chosen = [int(part) - 1 for part in text.split(",")]
    except ValueError:
        chosen = [-1]
    if not all(0 <= dimension < latent_dim for dimension in chosen):
        raise UsageError(f"--dimensions {text}: must be whole numbers from 1 to {latent_dim}, as in 1,2")
    return chosen


def _most_used(run: LoadedRun) -> list[int]:
    """The dimensions of highest rate, as measured at the end of the training; the first ones where it was not."""
    latent_dim = run.model.latent_dim
    try:
        with np.load(run.run.arrays_file, allow_pickle=False) as arrays:
            rates = arrays["rates"]
        if rates.shape == (latent_dim,):
            return np.argsort(-rates)[:MOST_DIMENSIONS].tolist()
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        pass
    return list(range(min(MOST_DIMENSIONS, latent_dim)))
