"""The wall time of training."""

import time
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

from ..engine.shards import Shard

__all__ = ["Stopwatch"]


class Stopwatch(Callback):
    """Measures the wall time of training, including drawing and logging, and counts its images.

    Attributes:
        seconds: from the first batch of the first epoch to the end of the last, including validation.
        images: number of training images processed, counted once per epoch.
        validated: metrics of the last validation.

    Checkpoints include all of them.
    """

    every_n_batches = 0

    def __init__(self) -> None:
        self.seconds = 0.0
        self.images = 0
        self.validated: dict[str, float] = {}
        self._started = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter() - self.seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        for part in batch if isinstance(batch, list) else [batch]:
            self.images += part.total if isinstance(part, Shard) else len(part[0])

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
