"""The images shown by the latent explorer of a report."""

from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..evaluation.codes import encode_all
from ..evaluation.geometry import box_lattice
from ..vae import VAE
from .drawing import drawing, grey_values, model_of, on_device, run_of
from .progress import Progress

__all__ = ["LatentExplorer"]


class LatentExplorer(Callback):
    """Decodes the images of the report's latent explorer in advance, because a web page cannot run the model.

    `figures/explorer.npz` holds, with all images as uint8:

    - `codes` `(N, 1)` or `(N, 2)`: posterior means of test images, above two dimensions in the plane of their leading
      components; `images` `(N, C, H, W)`: the test images; `labels` `(N,)` and `class_names` if the data have them;
      `explained` `(2,)`: the fraction of the codes' variance along each axis.
    - `box` `(2, 2)`: lowest and highest value along each axis; `lattice` `(R, S, C, H, W)`: images decoded at equal
      steps over the box, with the second coordinate decreasing from row to row.
    - `dimensions` `(K,)`: the most used ones; `values` `(V,)` and `slides` `(K, V, C, H, W)`: images decoded from the
      mean code with one dimension at a time set to each value.

    Args:
        cells: lattice points along each axis.
        points: maximum number of test images.
        dimensions: maximum number of dimensions that can be moved one at a time, the most used ones first.
        steps: number of values of each, from −3 to 3.
    """

    def __init__(self, cells: int = 41, points: int = 800, dimensions: int = 8, steps: int = 25) -> None:
        for option, value in [("cells", cells), ("steps", steps)]:
            if value < 2:
                raise ValueError(f"{option}: must be a whole number of at least 2, got {value}")
        self.cells = cells
        self.points = points
        self.dimensions = dimensions
        self.steps = steps

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model = model_of(pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        images, labels = data.examples("test", self.points)
        with Progress(trainer, "decoded").step("images for the latent explorer"), drawing(model):
            codes = encode_all(model, [on_device(model, images, labels)])
            chart = model.latent_space.chart(codes.points)
            low, high = chart.coordinates.amin(0), chart.coordinates.amax(0)
            margin = 0.08 * (high - low) + 1e-3
            box = torch.stack([low - margin, high + margin])
            one = model.latent_space.axes == 1
            lattice = box_lattice(box, self.cells, 1 if one else self.cells)
            known = len(codes.rates) == model.latent_dim
            used = codes.rates.argsort(descending=True) if known else torch.arange(model.latent_dim)
            used = used[: self.dimensions]
            values = torch.linspace(-3, 3, self.steps)
            slides = model.latent_space.traverse(codes.points.mean(0), used, values)
            arrays = {
                "codes": chart.coordinates[:, :1] if one else chart.coordinates,
                "images": grey_values(images),
                "box": box,
                "lattice": grey_values(_decoded(model, chart.lift(lattice))),
                "explained": chart.explained,
                "exact": torch.tensor(chart.exact),
                "dimensions": used,
                "values": values,
                "slides": grey_values(_decoded(model, slides)),
            }
        numbers: dict[str, Any] = {name: value.cpu().numpy() for name, value in arrays.items()}
        if labels is not None:
            numbers |= {"labels": labels.numpy(), "class_names": np.array(data.class_names)}
        file = run_of(trainer).explorer_file
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, **numbers)


def _decoded(model: VAE, codes: Tensor) -> Tensor:
    """Returns decoded means `(R, S, C, H, W)` of codes `(R, S, latent_dim)`, one row at a time."""
    return torch.stack([model.decode(row.to(model.device)).mean for row in codes])
