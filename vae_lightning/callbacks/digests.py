"""Digests of the images, kept with the run before it is trained: a resumed run must be trained on the same ones."""

from pytorch_lightning import Callback, LightningModule, Trainer

from ..data.datamodule import ImageDataModule
from ..runs import write_json
from .drawing import run_of

__all__ = ["Digests"]


class Digests(Callback):
    """Adds the digests of the images to the run's `environment.json`, if it is there and has none yet."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data, run = trainer.datamodule, run_of(trainer)  # type: ignore[attr-defined]
        if not (trainer.is_global_zero and isinstance(data, ImageDataModule)):
            return
        if run.environment_file.is_file() and not run.digests:
            write_json(run.environment_file, run.environment | {"data": data.digests()})
