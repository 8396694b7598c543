"""Checkpoints from which a training goes on as if it had not been interrupted, and the interruption itself."""

import io
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO

from ..engine.signals import Interrupted
from ..runs import Run, write_file
from . import batches_done

__all__ = ["AtomicCheckpointIO", "Checkpoints", "stoppable"]


Handler = Callable[[int, FrameType | None], None]


class Checkpoints(Checkpoint):
    """Keeps `checkpoints/last.ckpt`: at the end of each epoch, every n batches, and when the training is to stop.

    The file is replaced at once or not at all.

    Args:
        every_n_batches: n, counted in each epoch; 0 for the ends of epochs only.

    Attributes:
        stop_signal: number of the signal that asks to stop after the step that is being taken; 0 for none.
    """

    stop_signal = 0
    _handler: ClassVar[Handler | None] = None
    _requeue: ClassVar[Handler | None] = None

    def __init__(self, every_n_batches: int = 0) -> None:
        if every_n_batches < 0:
            raise ValueError(f"every_n_batches: must be a whole number of at least 0, got {every_n_batches}")
        self.every_n_batches = every_n_batches

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if Checkpoints._handler and not Checkpoints._requeue:  # Lightning has put its own in its place
            signal.signal(signal.SIGTERM, Checkpoints._handler)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        due = self.every_n_batches and batches_done(trainer, batch_idx) % self.every_n_batches == 0
        number = _stop_signal(trainer)
        if due or number:
            self._save(trainer)
        if number == signal.SIGUSR2 and Checkpoints._requeue:
            Checkpoints._requeue(number, None)
        if number:
            raise Interrupted(128 + number)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(Run(Path(trainer.default_root_dir)).checkpoint_file, weights_only=False)


def _stop_signal(trainer: Trainer) -> int:
    """The signal on which all processes of a training agree; with several, they ask each other every ten steps."""
    if trainer.world_size == 1:
        return Checkpoints.stop_signal
    if trainer.global_step % 10:
        return 0
    number = torch.tensor(Checkpoints.stop_signal, device=trainer.strategy.root_device)
    return int(trainer.strategy.reduce(number, reduce_op="max"))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside the previous one and then takes its place."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()  # PyTorch's writer would hide why a disk refuses
        torch.save(checkpoint, content)
        write_file(file, content.getvalue())


@contextmanager
def stoppable(trainer: Trainer) -> Iterator[None]:
    """Inside it, the first SIGINT or SIGTERM stops a training after the step that is being taken, a second one at once.

    Outside a training loop, and where there is nothing that would keep the state, the first one stops at once as well.
    In a job that submitit has started, its SIGUSR2 announces the end of the job's time: the state is kept, and submitit
    queues the job once more. SIGTERM, which a scheduler sends beside it, is then none of ours.
    """
    keeps = any(isinstance(callback, Checkpoints) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if threading.current_thread() is not threading.main_thread():  # signals go to that one
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGUSR2 and not trainer.training and Checkpoints._requeue:
            Checkpoints._requeue(number, frame)
        if Checkpoints.stop_signal or not (keeps and trainer.training):
            raise Interrupted(128 + number)
        Checkpoints.stop_signal = number

    requeue = signal.getsignal(signal.SIGUSR2)
    announced = keeps and callable(requeue)
    Checkpoints.stop_signal, Checkpoints._handler = 0, stop
    Checkpoints._requeue = requeue if announced else None  # type: ignore[assignment]
    numbers = (signal.SIGINT, signal.SIGUSR2 if announced else signal.SIGTERM)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        Checkpoints.stop_signal, Checkpoints._handler, Checkpoints._requeue = 0, None, None
        for number, handler in before.items():
            signal.signal(number, handler)
