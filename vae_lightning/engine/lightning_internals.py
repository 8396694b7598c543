"""Every use of Lightning's private interface; for each, a test fails if Lightning renames it."""

from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.core.optimizer import LightningOptimizer, do_nothing_closure
from pytorch_lightning.loops.loop import _Loop

__all__ = [
    "count_calls",
    "count_steps",
    "do_not_count",
    "is_trial",
    "leave_ended_epoch",
    "starts_at",
    "steps_between_checkpoints",
    "validates_next",
]


def count_steps(trainer: Trainer, steps: int) -> None:
    """Adds optimizer steps that were not taken by a `LightningOptimizer` to `trainer.global_step`."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for _ in range(steps):
        progress.increment_ready()
        progress.increment_completed()


def do_not_count(optimizer: LightningOptimizer) -> None:
    """Keeps an optimizer's steps in this call out of `trainer.global_step`, for optimizers beyond the first."""
    optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure


def count_calls(trainer: Trainer, steps: int) -> None:
    """Makes Lightning's call counter, under which it logs epoch metrics, count steps."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps - 1


def starts_at(trainer: Trainer) -> tuple[int, int]:
    """Returns the epoch in which training starts or resumes, and the number of its calls that are done already.

    Right after loading a checkpoint, `trainer.current_epoch` may still be the epoch that the checkpoint has ended.
    """
    loop: Any = trainer.fit_loop
    epochs, calls = loop.epoch_progress.current, loop.epoch_loop.batch_progress.current
    return epochs.processed, calls.processed if epochs.ready > epochs.processed else 0


def leave_ended_epoch(trainer: Trainer) -> None:
    """Starts a new epoch if a checkpoint was loaded that had ended one.

    Without `max_steps`, Lightning does so itself. With it, it would go on with an epoch that `max_steps` cut short.
    """
    epochs: Any = trainer.fit_loop.epoch_progress.current
    if epochs.ready == epochs.processed:
        _Loop.restarting.fset(trainer.fit_loop, False)  # type: ignore[attr-defined]


def is_trial(trainer: Trainer) -> bool:
    """Returns whether this is a dry run (`fast_dev_run`), which must not save anything."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def steps_between_checkpoints(callback: Callback) -> int:
    """Returns the number of optimizer steps between a `ModelCheckpoint`'s checkpoints; 0 if it saves by epoch."""
    return callback._every_n_train_steps if isinstance(callback, ModelCheckpoint) else 0


def validates_next(trainer: Trainer) -> bool:
    """Returns whether a validation follows the current training batch."""
    loop = trainer.fit_loop
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)  # type: ignore[arg-type]
