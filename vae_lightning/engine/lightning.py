"""All that is used of Lightning beyond its public interface; each has a test that fails when Lightning renames it."""

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.core.optimizer import LightningOptimizer, do_nothing_closure

__all__ = ["calls_done", "count_calls", "count_steps", "do_not_count", "is_trial", "steps_between_checkpoints"]


def count_steps(trainer: Trainer, steps: int) -> None:
    """Adds optimizer steps to `trainer.global_step` that no `LightningOptimizer` has taken."""
    progress = trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
    for _ in range(steps):
        progress.increment_ready()
        progress.increment_completed()


def do_not_count(optimizer: LightningOptimizer) -> None:
    """Leaves an optimizer's steps out of `trainer.global_step` in this call: a second one steps with the first."""
    optimizer._on_before_step = optimizer._on_after_step = do_nothing_closure


def count_calls(trainer: Trainer, steps: int) -> None:
    """Makes the next call's number that of the steps so far; Lightning logs an epoch's metrics under it."""
    trainer.fit_loop.epoch_loop._batches_that_stepped += steps - 1


def calls_done(trainer: Trainer) -> int:
    """Returns the calls of this epoch before an interrupted training was resumed."""
    return trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]


def is_trial(trainer: Trainer) -> bool:
    """Whether the training only tries a batch of everything (`fast_dev_run`), so that nothing is to be kept."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def steps_between_checkpoints(callback: Callback) -> int:
    """Returns the number of optimizer steps between a `ModelCheckpoint`'s checkpoints; 0 for whole epochs."""
    return callback._every_n_train_steps if isinstance(callback, ModelCheckpoint) else 0
