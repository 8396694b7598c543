"""Samples, reconstructions and codes of images."""

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data.sizes import at_once
from ..errors import UsageError
from ..plots import grey_values
from ..posteriors import point, spread
from ..priors import tempered
from ..runs import plain_cell
from ..runs.loading import LoadedRun
from .image_files import write_images
from .inputs import named_images, named_labels

if TYPE_CHECKING:
    from ..vae import VAE

__all__ = [
    "Codes", "decode", "encode", "reconstruct", "sample", "write_codes", "write_reconstructions", "write_samples",
]  # fmt: skip

COLUMNS = 10  # of a picture of reconstructions


class Codes(NamedTuple):
    """Codes of images.

    Attributes:
        points: the code that stands for each image, its posterior mean where that has a closed form: `(N, latent_dim)`.
        spreads: standard deviations of the posteriors `(N, latent_dim)`.
    """

    points: Tensor
    spreads: Tensor


@torch.no_grad()
def sample(model: "VAE", count: int, temperature: float = 1.0, labels: Tensor | None = None) -> Tensor:
    """Returns decoded codes from the prior: `(count, C, H, W)`, uint8.

    Args:
        model: on any device.
        count: of samples.
        temperature: factor of the prior's noise; see `vae_lightning.priors.tempered`.
        labels: classes `(count,)`, for a model that is conditional on them, which otherwise draws them evenly.

    Raises:
        UsageError: for a temperature below 0, or another than 1 where the prior has no such noise.
    """
    if temperature < 0:
        raise UsageError(f"--temperature {temperature:g}: must be at least 0")
    labels = model.draw_labels(count) if labels is None else labels
    parts, start = [], 0
    for size in _sizes(model, count):
        part = None if labels is None else labels[start : start + size].to(model.device)
        prior = _at(temperature, model.prior_distribution(part))
        codes = prior.sample(() if prior.batch_shape else (size,))  # a conditional prior's batch is the labels'
        parts.append(grey_values(model.decode(codes, part).mean))
        start += size
    return torch.cat(parts)


def _at(temperature: float, prior: Distribution) -> Distribution:
    if temperature == 1:
        return prior
    try:
        return tempered(prior, temperature)
    except ValueError as error:
        raise UsageError(f"--temperature {temperature:g}: the prior cannot be cooled: {error}; leave it out") from error


@torch.no_grad()
def decode(model: "VAE", codes: Tensor, labels: Tensor | None = None) -> Tensor:
    """Returns pictures `(N, C, H, W)`, uint8, of codes `(N, latent_dim)` and, where known, their classes `(N,)`."""
    return torch.cat([grey_values(model.decode(*part).mean) for part in _parts(model, codes, labels)])


@torch.no_grad()
def reconstruct(model: "VAE", images: Tensor, labels: Tensor | None = None) -> Tensor:
    """Returns reconstructions, uint8, of images `(N, C, H, W)` in [0, 1] and, where known, their classes `(N,)`."""
    return torch.cat([grey_values(model.reconstruct(*part)) for part in _parts(model, images, labels)])


@torch.no_grad()
def encode(model: "VAE", images: Tensor, labels: Tensor | None = None) -> Codes:
    """Returns the codes, on the CPU, of images `(N, C, H, W)` in [0, 1] and, where known, their classes `(N,)`."""
    posteriors: Iterator[Distribution] = (model.encode(*part) for part in _parts(model, images, labels))
    found = [(point(posterior).cpu(), spread(posterior).cpu()) for posterior in posteriors]
    points, spreads = zip(*found, strict=True)
    return Codes(torch.cat(points), torch.cat(spreads))


def write_samples(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes samples; returns what was written, by file, as all verbs do."""
    torch.manual_seed(options.seed)
    labels = named_labels(run, options)
    return {output: write_images(sample(run.model, options.count, options.temperature, labels), output)}


def write_reconstructions(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes images and their reconstructions: as arrays, or in rows of a picture, images above reconstructions."""
    torch.manual_seed(options.seed)
    images, labels, *_ = named_images(run, options)
    originals, reconstructions = grey_values(images), reconstruct(run.model, images, labels)
    if output.suffix == ".npz":
        np.savez_compressed(output, images=originals.numpy(), reconstructions=reconstructions.numpy())
        return {output: f"{_counted(images)} with reconstructions"}
    columns = min(COLUMNS, len(images))
    rows = zip(originals.split(columns), reconstructions.split(columns), strict=True)
    pairs = torch.cat([_padded(row, columns) for pair in rows for row in pair])
    write_images(pairs, output, columns)
    return {output: f"{_counted(images)}, reconstructions below"}


def write_codes(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes codes and standard deviations, with names, classes and factors of the images: as arrays or as a table."""
    torch.manual_seed(options.seed)
    images, labels, names, classes, factors = named_images(run, options)
    points, spreads = (part.numpy() for part in encode(run.model, images, labels))
    if output.suffix == ".npz":
        found: dict[str, Any] = {
            "means": points,
            "stddevs": spreads,
            "names": np.array(names),
            "classes": np.array(classes),
        }
        if factors:
            found |= {"factors": torch.stack([*factors.values()], 1).numpy(), "factor_names": np.array([*factors])}
        np.savez_compressed(output, **found)
    else:
        numbers = range(1, points.shape[1] + 1)
        with output.open("w", newline="") as file:
            writer = csv.writer(file)
            known = [f"factor_{plain_cell(name)}" for name in factors]
            codes = [f"{part}_{i}" for part in ("mean", "stddev") for i in numbers]
            writer.writerow(["image", "class", *known, *codes])
            values = torch.stack([*factors.values()], 1).tolist() if factors else [[]] * len(names)
            for name, label, row, code, deviation in zip(names, classes, values, points, spreads, strict=True):
                writer.writerow([plain_cell(name), plain_cell(label), *row, *code, *deviation])
    return {output: f"codes of {_counted(images)}"}


def _sizes(model: "VAE", total: int) -> Iterator[int]:
    """Yields the sizes of parts of images or codes that add up to `total`, with a progress bar if there are several."""
    from tqdm import tqdm

    most = at_once(model.decode(torch.zeros(1, model.latent_dim, device=model.device)).mean.shape[1:])
    sizes = [min(most, total - start) for start in range(0, total, most)]
    yield from tqdm(sizes, unit="part", disable=None if len(sizes) > 1 else True)


def _counted(images: Tensor) -> str:
    return "1 image" if len(images) == 1 else f"{len(images)} images"


def _parts(model: "VAE", inputs: Tensor, labels: Tensor | None) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Inputs and labels in parts, on the model's device."""
    start = 0
    for size in _sizes(model, len(inputs)):
        part = slice(start, start + size)
        yield inputs[part].to(model.device), None if labels is None else labels[part].to(model.device)
        start += size


def _padded(images: Tensor, count: int) -> Tensor:
    """Returns images, padded to a number with black ones."""
    return torch.cat([images, images.new_zeros(count - len(images), *images.shape[1:])])
