"""Helpers shared by callbacks: drawing without side effects, saving figures, and iterating over test batches.

Drawing does not affect training: it runs in evaluation mode, which is reset afterwards, with its own random state.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities.seed import isolate_rng

from .. import plots
from ..data.batch import Batch
from ..loggers.recording import add_picture, forgiven
from ..runs import Run
from ..vae import VAE

__all__ = [
    "batches_done",
    "batches_of_epoch",
    "drawing",
    "is_due",
    "model_of",
    "run_of",
    "save_figure",
    "save_picture",
    "tensorboards",
    "tested_batches",
]


@contextmanager
def drawing(model: LightningModule) -> Iterator[None]:
    """A context in evaluation mode, without gradients and with an isolated random state; restores everything."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad(), isolate_rng():
            yield
    finally:
        for module, training in modes:
            module.training = training


def save_figure(trainer: Trainer, name: str, figure: Figure) -> None:
    """Renders a figure once, saves it in `figures/`, and adds it to the loggers."""
    file = run_of(trainer).figures / f"{name.replace(' ', '_')}.png"
    save_picture(trainer, name, Image.fromarray(plots.rendered(figure)), file)


def save_picture(trainer: Trainer, name: str, picture: Image.Image, file: Path) -> None:
    """Saves a picture as a PNG file, and adds it to the loggers."""
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, compress_level=plots.COMPRESSION)
    for logger in trainer.loggers:
        with forgiven(logger, name):
            add_picture(logger, name, file, trainer.global_step)


def tested_batches(trainer: Trainer) -> Iterator[Batch]:
    """Yields the test batches as a test step receives them, but whole even if each process tests a shard."""
    loader = trainer.test_dataloaders or ()
    if trainer.world_size > 1 and hasattr(trainer.datamodule, "whole_test_batches"):  # type: ignore[attr-defined]
        loader = trainer.datamodule.whole_test_batches()  # type: ignore[attr-defined]
    for batch in islice(loader, *map(int, trainer.num_test_batches[:1])):
        yield trainer.strategy.batch_to_device(batch)


def batches_done(trainer: Trainer, batch_idx: int) -> int:
    """Returns the number of batches done in this epoch after a call of Lightning's loop, which may take several."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    per_call = getattr(data, "batches_per_call", 1)
    return batch_idx + 1 if per_call == 1 else min((batch_idx + 1) * per_call, data.training_batches)


def is_due(trainer: Trainer, batch_idx: int, every_n_batches: int) -> bool:
    """Returns whether the batches done in this epoch are a multiple of n.

    Epochs of fewer batches are counted as one: the end of each that completes a multiple of n is due.
    """
    done = batches_done(trainer, batch_idx)
    if (whole := batches_of_epoch(trainer)) >= every_n_batches:
        return done % every_n_batches == 0
    before = trainer.current_epoch * whole
    return done == whole and (before + whole) // every_n_batches > before // every_n_batches


def batches_of_epoch(trainer: Trainer) -> float:
    """Returns the number of batches in an epoch, infinite if the loader of another data module has no length."""
    calls = trainer.num_training_batches
    return calls if math.isinf(calls) else batches_done(trainer, int(calls) - 1)


def model_of(module: LightningModule) -> VAE:
    """Returns the module that a hook receives, as a `VAE`; raises `TypeError` for any other."""
    if not isinstance(module, VAE):
        raise TypeError(f"this callback needs a VAE, got a {type(module).__name__}")
    return module


def run_of(trainer: Trainer) -> Run:
    """Returns the run that the trainer writes to."""
    return Run(Path(trainer.default_root_dir))


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """Returns the trainer's TensorBoard loggers."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
