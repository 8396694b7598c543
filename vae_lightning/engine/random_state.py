"""The random state in a checkpoint, so that a resumed run draws the same noise as an uninterrupted one."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer

__all__ = ["RandomState"]


class RandomState(Callback):
    """Saves the random state of the CPU and the training device in checkpoints and restores it on resuming."""

    every_n_batches = 0

    def __init__(self) -> None:
        self._restored: dict[str, Any] | None = None

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # The same in every process, on any device: all draw the noise of the whole batch.
        device = pl_module.device
        state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        checkpoint["random_state"] = {"cpu": torch.get_rng_state(), "device": state}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._restored = checkpoint.get("random_state")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._restored is None:
            return
        torch.set_rng_state(self._restored["cpu"])
        if self._restored["device"] is not None:
            torch.cuda.set_rng_state(self._restored["device"], pl_module.device)
        self._restored = None
