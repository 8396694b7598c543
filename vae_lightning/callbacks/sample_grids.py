"""Grids of samples during training, and a figure of their progress."""

import torch
from PIL import Image
from pytorch_lightning import Callback, LightningModule, Trainer
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from .. import plots
from ..data.sizes import shrunk
from .drawing import drawing, is_due, model_of, run_of, save_figure, save_picture

__all__ = ["SampleGrids"]


LARGEST = 64  # pixels of a side of a sample


class SampleGrids(Callback):
    """Draws a grid of samples from the prior at every n-th batch of each epoch, always from the same noise.

    Samples with a side of more than 64 pixels are averaged down to that, because there may be thousands of grids. At
    the end of training, evenly spaced grids, including the first and last, are combined in one figure.

    Args:
        every_n_batches: n; epochs of fewer batches are counted as one, with grids at the end of some.
        images: samples per grid.
        shown: grids in the final figure.
    """

    def __init__(self, every_n_batches: int = 50, images: int = 64, shown: int = 16) -> None:
        self.every_n_batches = every_n_batches
        self.images = images
        self.shown = shown

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if not is_due(trainer, batch_idx, self.every_n_batches) or not trainer.is_global_zero:
            return
        model = model_of(pl_module)
        with drawing(model):
            # The noise is fixed rather than the codes, because a learned prior changes.
            torch.manual_seed(0)
            samples = shrunk(model.sample(self.images), LARGEST)
        grid = plots.grey_values(plots.tile(samples, round(self.images**0.5)))
        file = run_of(trainer).grid_file(trainer.global_step)
        save_picture(trainer, "samples during training", to_pil_image(grid), file)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        files = run_of(trainer).grids()
        if not files or not trainer.is_global_zero:
            return
        chosen = plots.evenly_spaced(list(files), self.shown)
        name = trainer.datamodule.name  # type: ignore[attr-defined]
        title = f"Samples from the prior over training: {name}, latent dimension {model_of(pl_module).latent_dim}"
        with plots.style():
            grids = {step: pil_to_tensor(Image.open(files[step])) for step in chosen}
            figure = plots.progress(grids, title)
        save_figure(trainer, "samples over training", figure)
