"""The images shown by the latent explorer of a report."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..conditioning import is_conditional
from ..data.batch import Batch
from ..data.sizes import shrunk
from ..latent_spaces import box_lattice
from ..metrics.codes import decode_all, encode_all
from ..plots import drawable, evenly_spaced, grey_values
from ..progress import Progress
from ..vae import VAE
from .drawing import drawing, model_of, run_of

__all__ = ["LatentExplorer"]

LARGEST = 64  # pixels of a side of a picture that is shown
CLASSES = 10  # that codes are decoded with


class LatentExplorer(Callback):
    """Decodes the images of the report's latent explorer in advance, because a web page cannot run the model.

    `figures/explorer.npz` holds, with all images as uint8, in grey or in colour (see `drawable`):

    - `codes` `(N, 1)` or `(N, 2)`: posterior means of test images, above two dimensions in the plane of their leading
      components; `images` `(N, C, H, W)`: the test images; `labels` `(N,)` and `class_names` if the data have them;
      `explained` `(2,)`: the fraction of the codes' variance along each axis; `names` `(2,)` of the axes, for another
      space than R^d.
      Images are shrunk, see `megabytes`.
    - `box` `(2, 2)`: lowest and highest value along each axis; `lattice` `(R, S, C, H, W)`: images decoded at equal
      steps over the box, with the second coordinate decreasing from row to row.
    - `dimensions` `(K,)`: the most used ones; `values` `(V,)` and `slides` `(K, V, C, H, W)`: images decoded from the
      mean code with one dimension at a time set to each value.
    - if the decoder is given labels, `decoded_classes` `(L,)`, at most ten: then `lattice` `(L·R, S, C, H, W)` and
      `slides` `(L·K, V, C, H, W)` are decoded with each of these labels in turn, with fewer cells and dimensions.

    Args:
        cells: lattice points along each axis.
        points: maximum number of test images.
        dimensions: maximum number of dimensions that can be moved one at a time, the most used ones first.
        steps: number of values of each, from −3 to 3.
        megabytes: of pixels, at most, in each of `lattice`, `images` and `slides`, so that a report stays small. Images
            with a side of more than 64 pixels are averaged down to that; then there are fewer cells, test images and
            dimensions: in colour, 26 cells and 682 images from 64 pixels on.
    """

    def __init__(
        self, cells: int = 41, points: int = 800, dimensions: int = 8, steps: int = 25, megabytes: float = 8.0
    ) -> None:
        options = [("cells", cells, 2), ("points", points, 1), ("dimensions", dimensions, 1), ("steps", steps, 2)]
        for option, value, least in options:
            if value < least:
                raise ValueError(f"{option}: must be a whole number of at least {least}, got {value}")
        if not megabytes > 0:
            raise ValueError(f"megabytes: must be greater than 0, got {megabytes}")
        self.cells = cells
        self.points = points
        self.dimensions = dimensions
        self.steps = steps
        self.megabytes = megabytes

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model = model_of(pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        shape = data.examples("test", 1).images.shape[1:]
        most = max(4, int(self.megabytes * 2**20) // _shown(torch.zeros(1, *shape)).numel())  # pictures of each kind
        images, labels = data.examples("test", min(self.points, most))
        with Progress(trainer, "decoded").step("images for the latent explorer"), drawing(model):
            codes = encode_all(model, [Batch(images, labels).on(model.device)])
            chart = model.latent_space.chart(codes.points)
            low, high = chart.coordinates.amin(0), chart.coordinates.amax(0)
            margin = 0.08 * (high - low) + 1e-3
            box = torch.stack([low - margin, high + margin])
            one = model.latent_space.axes == 1
            classes = _decoded_classes(model, data.class_names)
            most //= max(1, len(classes))
            cells = max(2, min(self.cells, most if one else math.isqrt(most)))
            lattice = box_lattice(box, cells, 1 if one else cells)
            known = len(codes.rates) == model.latent_dim
            used = codes.rates.argsort(descending=True) if known else torch.arange(model.latent_dim)
            used = used[: min(self.dimensions, max(1, most // self.steps))]
            values = torch.linspace(-3, 3, self.steps)
            slides = model.latent_space.traverse(codes.points.mean(0), used, values)
            arrays = {
                "codes": chart.coordinates[:, :1] if one else chart.coordinates,
                "images": _shown(images),
                "box": box,
                "lattice": _decoded(model, chart.lift(lattice), shape, classes),
                "explained": chart.explained,
                "exact": torch.tensor(chart.exact),
                "dimensions": used,
                "values": values,
                "slides": _decoded(model, slides, shape, classes),
            }
        numbers: dict[str, Any] = {name: value.cpu().numpy() for name, value in arrays.items()}
        if not model.latent_space.unbounded:
            numbers["names"] = np.array(chart.names)
        if labels is not None:
            numbers |= {"labels": labels.numpy(), "class_names": np.array(data.class_names)}
        if classes:
            numbers |= {"decoded_classes": np.array(classes)}
        file = run_of(trainer).explorer_file
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **numbers)


def _decoded_classes(model: VAE, class_names: Sequence[str]) -> list[int]:
    """The labels that codes are decoded with, of many classes some; empty if the decoder is given none."""
    if not is_conditional(model.decoder):
        return []
    return evenly_spaced(range(len(class_names)), CLASSES)


def _decoded(model: VAE, codes: Tensor, image_shape: Sequence[int], classes: Sequence[int]) -> Tensor:
    """Returns what is shown `(R, S, C, h, w)` of codes `(R, S, latent_dim)`, made one row at a time, for each class."""
    given = [torch.full(codes.shape[1:2], label, device=model.device) for label in classes]
    labels: list[Tensor | None] = [*given] or [None]
    rows = [(row.to(model.device), known) for known in labels for row in codes]
    return torch.stack([_shown(decode_all(model, row, image_shape, known)) for row, known in rows])


def _shown(images: Tensor) -> Tensor:
    """Returns images `(N, C, H, W)` as uint8, with at most `LARGEST` pixels a side of each of their channels."""
    return grey_values(drawable(shrunk(images, LARGEST)))
