"""How steps are taken, and what keeps several of them out of one call of Lightning's loop."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary, ProgressBar

from .lightning import steps_between_checkpoints

__all__ = ["Options", "fused", "settle"]

# What a callback overrides that counts steps, or changes how they are taken.
STEP_HOOKS = (
    "on_after_backward", "on_before_backward", "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end",
    "on_train_batch_start", "on_train_epoch_start",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """How steps are taken.

    Args:
        steps_per_call: optimizer steps, at most, for each call of Lightning's loop, which then gets a list of batches.
            They are the same steps, with less around them.
        cuda_graph: whether, on a CUDA device, a step is recorded once and then replayed; see `graphs`.
        channels_last: whether images and kernels lie in memory with their channels last during training, which
            convolutions may compute faster.
        compile: whether training steps are compiled (`torch.compile`), once for each size of batch. Pays off where
            the time that it takes, tens of seconds on a CPU, is short beside the training.
    """

    steps_per_call: int = 1
    cuda_graph: bool = False
    channels_last: bool = False
    compile: bool = False


def settle(options: Options, trainer: Trainer, schedules: list[Any]) -> tuple[Options, str]:
    """Returns the options that nothing attached to a trainer could tell from one step a call, and what limits them.

    Several steps a call are as many as divide what counts batches: callbacks with an attribute `every_n_batches` (0:
    any number will do), limits, `val_check_interval` and `max_steps`; one where something looks at every step.

    Args:
        options: as asked for.
        trainer: not yet running.
        schedules: Lightning's configurations of learning-rate schedules.
    """
    if reason := _wants_single_steps(trainer, schedules):
        return replace(options, steps_per_call=1, cuda_graph=False), reason
    counts = [getattr(callback, "every_n_batches", 0) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    counts += [steps_between_checkpoints(callback) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    counts += [limit for limit in (trainer.limit_train_batches, trainer.val_check_interval) if type(limit) is int]
    steps = math.gcd(options.steps_per_call, *counts, max(trainer.max_steps, 0))
    # Lightning counts calls.
    if type(trainer.limit_train_batches) is int:
        trainer.limit_train_batches //= steps
    if type(trainer.val_check_interval) is int:
        trainer.val_check_interval //= steps
    # A schedule changes the learning rate, which a graph has recorded.
    return replace(options, steps_per_call=steps, cuda_graph=options.cuda_graph and not schedules), ""


def _wants_single_steps(trainer: Trainer, schedules: list[Any]) -> str:
    """What looks at every step, as a user knows it; empty if nothing does."""
    for option, plain in [
        ("accumulate_grad_batches", 1),
        ("gradient_clip_val", None),
        ("fast_dev_run", False),
        ("overfit_batches", 0),
    ]:
        if (value := getattr(trainer, option)) != plain:
            return f"trainer.{option}={value}"
    if trainer.world_size > 1:
        return "several devices"
    if any(
        limit != 1.0 and type(limit) is float for limit in (trainer.limit_train_batches, trainer.val_check_interval)
    ):
        return "a fraction of an epoch"
    if any(_every(schedule) for schedule in schedules):
        return "a learning-rate schedule by epochs or metrics"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        known = hasattr(callback, "every_n_batches") or isinstance(
            callback, ProgressBar | ModelCheckpoint | ModelSummary
        )
        if not known and any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS):
            return type(callback).__name__
    return ""


def _every(schedule: dict[str, Any]) -> bool:
    """Whether a schedule is not stepped after each optimizer step."""
    return schedule.get("interval", "epoch") != "step" or schedule.get("frequency", 1) != 1 or "monitor" in schedule


def fused(make_optimizer: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a factory of the same optimizers, fused where their class can be and nothing was said of it."""
    if (
        not isinstance(make_optimizer, partial)
        or {"fused", "foreach", "differentiable"} & make_optimizer.keywords.keys()
    ):
        return make_optimizer
    if "fused" not in inspect.signature(make_optimizer.func).parameters:
        return make_optimizer
    return partial(make_optimizer, fused=True)
