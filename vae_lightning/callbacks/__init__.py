"""When something is printed or drawn in a run, and where it goes: the log, `figures/` and TensorBoard.

Drawing leaves no trace on the training: it happens in evaluation mode, which is undone, and draws its noise
outside the training's random state.
"""

import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from .. import plots
from ..engine.shards import Part
from ..evaluation.codes import (
    box_lattice,
    coordinate_plane,
    encode_all,
    normal_lattice,
    principal_plane,
    square_lattice,
    traverse,
)
from ..runs import Run
from ..vae import VAE

__all__ = [
    "FinalFigures",
    "LatentExplorer",
    "LossLines",
    "SampleGrids",
    "Stopwatch",
    "TensorBoardViews",
    "batches_done",
    "drawing",
    "save_figure",
    "tested_batches",
]

log = logging.getLogger(__name__)


class LossLines(Callback):
    """Prints the terms of the loss at every n-th batch of each epoch.

    Args:
        every_n_batches: n.
    """

    def __init__(self, every_n_batches: int = 50) -> None:
        self.every_n_batches = every_n_batches

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        batches = batches_done(trainer, batch_idx)
        if batches % self.every_n_batches:
            return
        # Lightning divides the loss, and only that, by the number of batches that it accumulates.
        terms = outputs | {"loss": outputs["loss"] * trainer.accumulate_grad_batches}
        values = "   ".join(f"{name} {terms[name].item():7.2f}" for name in ("loss", "distortion", "rate"))
        of_epochs, of_batches = trainer.max_epochs, batches_done(trainer, int(trainer.num_training_batches) - 1)
        log.info("epoch %d/%s  batch %3d/%s   %s", trainer.current_epoch + 1, of_epochs, batches, of_batches, values)


class SampleGrids(Callback):
    """A grid of samples from the prior at every n-th batch of each epoch, always from the same noise.

    At the end of training, evenly spaced ones of them, from first to last, are put together in one figure.

    Args:
        every_n_batches: n.
        images: samples in a grid.
        shown: grids in the final figure.
    """

    def __init__(self, every_n_batches: int = 50, images: int = 64, shown: int = 16) -> None:
        self.every_n_batches = every_n_batches
        self.images = images
        self.shown = shown

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if batches_done(trainer, batch_idx) % self.every_n_batches or not trainer.is_global_zero:
            return
        model = _vae(pl_module)
        with drawing(model):
            # Noise, not codes, is what stays the same: a learned prior moves.
            torch.manual_seed(0)
            samples = model.sample(self.images)
        grid = (plots.tile(samples, round(self.images**0.5)) * 255).round().to(torch.uint8).cpu()
        file = _run(trainer).grid_file(trainer.global_step)
        file.parent.mkdir(parents=True, exist_ok=True)
        to_pil_image(grid).save(file)
        for logger in _tensorboards(trainer):
            logger.experiment.add_image("samples during training", grid, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        files = _run(trainer).grids()
        if not files or not trainer.is_global_zero:
            return
        chosen = plots.evenly_spaced(list(files), self.shown)
        name = trainer.datamodule.name  # type: ignore[attr-defined]
        title = f"Samples from the prior over training: {name}, latent dimension {_vae(pl_module).latent_dim}"
        with plots.style():
            grids = {step: pil_to_tensor(Image.open(files[step])) for step in chosen}
            figure = plots.progress(grids, title)
        save_figure(trainer, "samples over training", figure)


class FinalFigures(Callback):
    """Draws the tested model: its codes, what it makes of them, and its samples.

    What the comparison of a sweep draws again goes to `figures/figures.npz`: `points` `(N, 1)` or `(N, 2)`, the test
    means or their two principal components; `explained` `(2,)`, the share of the variance along each; `labels` `(N,)`;
    `class_names`; `rates` `(latent_dim,)`; and, as uint8, `originals`, `reconstructions` and `samples`
    `(M, C, H, W)`.

    Args:
        scatter_limit: half the width of the scatter's axes for latent dimension 2; null for the data's own extent.
        lattice_extent: half the width of the chapter's lattice.
        lattice_cells: codes along each side of it.
        quantile_cells: codes along each side of the lattice at normal quantiles.
        reconstructions: test images shown beside their reconstructions, of the first test batch.
        samples: samples from the prior.
        traversed: dimensions that are traversed, the most used ones, for latent dimensions above 2.
    """

    def __init__(
        self,
        scatter_limit: float | None = 4.0,
        lattice_extent: float = 8.0,
        lattice_cells: int = 8,
        quantile_cells: int = 20,
        reconstructions: int = 20,
        samples: int = 100,
        traversed: int = 10,
    ) -> None:
        self.scatter_limit = scatter_limit
        self.lattice_extent = lattice_extent
        self.lattice_cells = lattice_cells
        self.quantile_cells = quantile_cells
        self.reconstructions = reconstructions
        self.samples = samples
        self.traversed = traversed

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model = _vae(pl_module)
        with drawing(model), plots.style():
            torch.manual_seed(0)
            for name, figure in self._figures(trainer, model):
                save_figure(trainer, name, figure)

    def _figures(self, trainer: Trainer, model: VAE) -> Iterator[tuple[str, Figure]]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        subject = f"{data.name}, latent dimension {model.latent_dim}"

        codes = encode_all(model, tested_batches(trainer))
        originals = next(tested_batches(trainer))[0][: self.reconstructions]
        reconstructed, samples = model.reconstruct(originals), model.sample(self.samples)
        yield "reconstructions", plots.reconstructions(originals, reconstructed, f"Test images: {subject}")
        columns = math.ceil(self.samples**0.5)
        yield "samples", plots.tiles(samples, columns, f"Samples from the prior: {subject}")

        points, explained = codes.means, torch.ones(2)
        title, axes, limit = f"Posterior means of the test images: {subject}", ("$z_1$", "$z_2$"), None
        if model.latent_dim == 1:
            axes = ("$z_1$", "")
        elif model.latent_dim == 2:
            limit = self.scatter_limit
        else:
            plane = principal_plane(codes.means)
            points, explained = plane.coordinates, plane.explained
            first, second = (f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(explained))
            title, axes = f"{title}\n{explained.sum():.0%} of their variance is in this plane", (first, second)
        yield "latent means", plots.latent_scatter(points, codes.labels, data.class_names, title, axes, limit)

        if model.latent_dim == 2:
            for name, lattice in [
                ("lattice", square_lattice(self.lattice_extent, self.lattice_cells)),
                ("lattice of quantiles", normal_lattice(self.quantile_cells)),
            ]:
                decoded = model.decode(lattice.to(model.device)).mean
                yield name, plots.lattice(decoded, lattice, f"Decoded {name}: {subject}")
        elif model.latent_dim > 2:
            used = codes.rates.argsort(descending=True)[: self.traversed]
            values = torch.linspace(-3, 3, 11)
            decoded = model.decode(traverse(codes.means[0], used, values).to(model.device)).mean
            rows = [f"$z_{{{j + 1}}}$, {codes.rates[j]:.1f} nats" for j in used.tolist()]
            title = f"The most used dimensions, traversed from the first test image: {subject}"
            yield "traversals", plots.traversals(decoded, rows, values.tolist(), title)

        pictures = {"originals": originals, "reconstructions": reconstructed, "samples": samples}
        arrays: dict[str, Any] = dict(
            points=points.float().numpy(),
            explained=explained.numpy(),
            labels=codes.labels.numpy(),
            class_names=np.array(data.class_names),
            rates=codes.rates.numpy(),
            **{name: _grey_values(images).cpu().numpy() for name, images in pictures.items()},
        )
        np.savez_compressed(_run(trainer).arrays_file, **arrays)


class LatentExplorer(Callback):
    """Decodes the tested model ahead of time, for the explorer of the report: a page cannot run it.

    `figures/explorer.npz` holds, images always as uint8:

    - `codes` `(N, 1)` or `(N, 2)`: posterior means of test images, above two dimensions in the plane of their leading
      components; `labels` `(N,)`, `class_names` and `images` `(N, C, H, W)` of them; `explained` `(2,)`: the share
      of their variance along each axis.
    - `box` `(2, 2)`: lowest and highest value along either axis; `lattice` `(R, S, C, H, W)`: decoded at equal
      steps of the box, the second coordinate falling from row to row.
    - `dimensions` `(K,)`: the most used ones; `values` `(V,)` and `slides` `(K, V, C, H, W)`: decoded from the mean
      code with one dimension at a time set to each value.

    Args:
        cells: lattice points along each axis.
        points: test images, at most.
        dimensions: dimensions, at most, that can be moved one at a time, the most used ones.
        steps: values that each of them takes, from −3 to 3.
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
        model = _vae(pl_module)
        data = trainer.datamodule  # type: ignore[attr-defined]
        images, labels = data.examples("test", self.points)
        with drawing(model):
            codes = encode_all(model, [(images.to(model.device), labels)])
            one = model.latent_dim == 1
            plane = coordinate_plane(codes.means) if model.latent_dim <= 2 else principal_plane(codes.means)
            low, high = plane.coordinates.amin(0), plane.coordinates.amax(0)
            margin = 0.08 * (high - low) + 1e-3
            box = torch.stack([low - margin, high + margin])
            lattice = box_lattice(box, self.cells, 1 if one else self.cells)
            used = codes.rates.argsort(descending=True)[: self.dimensions]
            values = torch.linspace(-3, 3, self.steps)
            arrays = {
                "codes": plane.coordinates[:, :1] if one else plane.coordinates,
                "labels": labels,
                "images": _grey_values(images),
                "box": box,
                "lattice": _grey_values(_decoded(model, plane.lift(lattice))),
                "explained": plane.explained,
                "dimensions": used,
                "values": values,
                "slides": _grey_values(_decoded(model, traverse(codes.means.mean(0), used, values))),
            }
        numbers = {name: value.cpu().numpy() for name, value in arrays.items()}
        file = _run(trainer).explorer_file
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(file, class_names=np.array(data.class_names), **numbers)


class TensorBoardViews(Callback):
    """What TensorBoard shows beyond curves and pictures: the terms of all runs as one chart each, and the codes.

    The charts are in its Custom Scalars tab; the posterior means of test images, with their classes and the images
    themselves, in its Projector tab.

    Args:
        points: test images, at most, in the projector; 0 leaves it out.
    """

    layout: ClassVar = {
        "training": {term: ["Multiline", [f"^train/{term}$"]] for term in ("loss", "distortion", "rate")}
    }

    def __init__(self, points: int = 1000) -> None:
        self.points = points

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in _tensorboards(trainer):
            logger.experiment.add_custom_scalars(self.layout)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loggers = _tensorboards(trainer)
        if not loggers or not self.points or not trainer.is_global_zero:
            return
        model, data = _vae(pl_module), trainer.datamodule  # type: ignore[attr-defined]
        images, labels = data.examples("test", self.points)
        with drawing(model):
            means = encode_all(model, [(images.to(model.device), labels)]).means
        classes = [data.class_names[label] for label in labels.tolist()]
        # The projector wants at least two columns.
        codes = means if model.latent_dim > 1 else torch.cat([means, torch.zeros_like(means)], 1)
        for logger in loggers:
            logger.experiment.add_embedding(
                codes, classes, images.expand(-1, 3, -1, -1), trainer.global_step, "posterior means"
            )


def _decoded(model: VAE, codes: Tensor) -> Tensor:
    """Means `(R, S, C, H, W)` at codes `(R, S, latent_dim)`, a row at a time."""
    return torch.stack([model.decode(row.to(model.device)).mean for row in codes])


def _grey_values(images: Tensor) -> Tensor:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


class Stopwatch(Callback):
    """Measures training: its wall time and the images it went through, drawing and logging included.

    Attributes:
        seconds: from the first batch of the first epoch to the end of the last, validation included.
        images: that were trained on, counted once for each epoch.
        validated: the last validation's metrics.

    Checkpoints keep them all.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self.validated: dict[str, float] = {}
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter() - self.seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        for part in batch if isinstance(batch, list) else [batch]:
            self.images += part.total if isinstance(part, Part) else len(part[0])

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self.seconds = time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = trainer.callback_metrics.items()
        self.validated = {name: value.item() for name, value in found if name.startswith("val/")}

    def state_dict(self) -> dict[str, Any]:
        seconds = time.perf_counter() - self._started
        return {"seconds": seconds, "images": self.images, "validated": self.validated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.seconds, self.images, self.validated = (state_dict[name] for name in ("seconds", "images", "validated"))


def batches_done(trainer: Trainer, batch_idx: int) -> int:
    """Batches of this epoch that are done after a call of Lightning's loop, which may take several."""
    per_call = _vae(trainer.lightning_module).steps_per_call
    if per_call == 1:
        return batch_idx + 1
    return min((batch_idx + 1) * per_call, trainer.datamodule.training_batches)  # type: ignore[attr-defined]


@contextmanager
def drawing(model: LightningModule) -> Iterator[None]:
    """Evaluation mode without gradients and with random draws of its own; everything is put back afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), isolate_rng():
            yield
    finally:
        for module, training in modes:
            module.training = training


def save_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    """Renders a figure once, for `figures/` and for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    picture = torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy()).permute(2, 0, 1)
    folder = _run(trainer).figures
    folder.mkdir(parents=True, exist_ok=True)
    to_pil_image(picture).save(folder / f"{name.replace(' ', '_')}.png")
    for logger in _tensorboards(trainer):
        logger.experiment.add_image(name, picture, trainer.global_step)


def tested_batches(trainer: Trainer) -> Iterator[tuple[Tensor, Tensor]]:
    """The test batches, as a test step receives them, but whole ones, also where each process tests a part."""
    loader = trainer.test_dataloaders or ()
    if trainer.world_size > 1 and hasattr(trainer.datamodule, "whole_test_batches"):  # type: ignore[attr-defined]
        loader = trainer.datamodule.whole_test_batches()  # type: ignore[attr-defined]
    for batch in islice(loader, *map(int, trainer.num_test_batches[:1])):
        yield trainer.strategy.batch_to_device(batch)


def _vae(module: LightningModule) -> VAE:
    if not isinstance(module, VAE):
        raise TypeError(f"this callback draws a VAE, not a {type(module).__name__}")
    return module


def _run(trainer: Trainer) -> Run:
    return Run(Path(trainer.default_root_dir))


def _tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
