"""Checkpoints from which a run resumes as if it had not been interrupted."""

import io
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, EarlyStopping, ModelCheckpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from ..engine.lightning_internals import is_trial, validates_next
from ..engine.signals import Interruption
from ..errors import UsageError
from ..runs import write_file
from .drawing import batches_done, run_of

__all__ = ["AtomicCheckpointIO", "Checkpoints"]


class Checkpoints(Checkpoint):
    """Writes `checkpoints/last.ckpt` at the end of each epoch, every n batches, and before an interrupted run stops.

    A run stops, and is saved within an epoch, only where it can be resumed as if it had not: after an optimizer step,
    and not between a batch and the validation that follows it. The file is replaced atomically.

    Args:
        every_n_batches: n, counted within each epoch; 0 to save only at the end of each epoch.

    Attributes:
        interruption: polled after each step for a request to stop.
    """

    def __init__(self, every_n_batches: int = 0) -> None:
        if every_n_batches < 0:
            raise ValueError(f"every_n_batches: must be a whole number of at least 0, got {every_n_batches}")
        self.every_n_batches = every_n_batches
        self.interruption: Interruption | None = None
        self._saved: list[float] = []
        self._written: list[float] = []
        self._loaded: Mapping[str, Tensor] | None = None
        self._step = 0
        self._due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step, self._loaded = trainer.global_step, None
        # A checkpoint has what early stopping has decided, but not that it ends the training.
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping) and callback.stopping_reason_message:
                trainer.should_stop |= trainer.current_epoch == callback.stopped_epoch + 1
        if self.interruption:
            self.interruption.hold()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_requested()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        if self.every_n_batches and batches_done(trainer, batch_idx) % self.every_n_batches == 0:
            self._due = True
        # Gradients that are being accumulated are not part of a checkpoint, and a validation that is due after this
        # batch would be left out when resuming: both are waited for.
        stepped, self._step = trainer.global_step != self._step, trainer.global_step
        if not stepped or trainer.is_last_batch or validates_next(trainer):
            return
        if self._due or (self.interruption and self.interruption.requested()):
            self._save(trainer)
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        if self.interruption and (number := self.interruption.requested()):
            self.interruption.stop(number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # Weight averaging changes the weights after the last epoch; the tested weights must be the saved ones. A moving
        # average has been saved already, with the current weights, which a run that is extended needs.
        if self._saved != _fingerprint(pl_module.state_dict()):
            self._save(trainer)
        self._stop_if_requested()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._loaded:  # nothing was left to train: weight averaging has restored the current weights for it
            pl_module.load_state_dict(self._loaded)
            self._loaded = None

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.interruption:
            self.interruption.hold()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        # This hook of all callbacks comes before any of their states is loaded.
        states = checkpoint["callbacks"]
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.state_key in states:
                states[callback.state_key] = _moved(states[callback.state_key], str(callback.dirpath))
        self._loaded = checkpoint["state_dict"]
        self._saved = _fingerprint(checkpoint["state_dict"])

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._written = _fingerprint(checkpoint["state_dict"])

    def _save(self, trainer: Trainer) -> None:
        if not is_trial(trainer):
            trainer.save_checkpoint(run_of(trainer).checkpoint_file, weights_only=False)
            self._saved = self._written
        self._due = False


def _moved(state: dict[str, Any], folder: str) -> dict[str, Any]:
    """Returns the state of a `ModelCheckpoint` with the folder that its checkpoints are in now.

    Lightning would forget the best score of a run that has been moved or renamed.
    """
    before = str(state["dirpath"])

    def moved(value: Any) -> Any:
        if isinstance(value, dict):
            return {moved(key): child for key, child in value.items()}
        return folder + value.removeprefix(before) if isinstance(value, str) and value.startswith(before) else value

    found = {name: moved(value) for name, value in state.items()}
    return found if not found["best_model_path"] or Path(found["best_model_path"]).is_file() else state


def _fingerprint(state: Mapping[str, Tensor]) -> list[float]:
    return [tensor.cpu().double().sum().item() for tensor in state.values()]


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a temporary file that then replaces the previous one.

    Raises:
        UsageError: if a callback has a state with which the checkpoint could not be loaded.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        for name, state in checkpoint.get("callbacks", {}).items():
            _refuse_objects(name, state)
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, _pickled(checkpoint).getvalue())


def _pickled(found: Any) -> io.BytesIO:
    content = io.BytesIO()  # PyTorch's writer to a file would hide the reason for a write error
    torch.save(found, content)
    content.seek(0)
    return content


def _refuse_objects(callback: str, state: Any) -> None:
    """Raises `UsageError` for a state with which the checkpoint could not be loaded, as tensors and plain values."""
    try:
        torch.load(_pickled(state), weights_only=True)
    except UnpicklingError as error:
        kinds, found = "tensors, numbers, texts, and lists and dictionaries of these", str(state)[:200]
        raise UsageError(f"callbacks: the state_dict of {callback} must consist of {kinds}, got {found}") from error
