"""Options for executing training steps, and the conditions that rule out several steps per call."""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, ModelSummary, ProgressBar
from torch.optim import Optimizer

from .lightning_internals import steps_between_checkpoints

__all__ = ["Options", "fused", "replayable", "settle", "spaced", "take_trial_step"]

# Hooks overridden by callbacks that count steps or change how they are taken.
STEP_HOOKS = (
    "on_after_backward", "on_before_backward", "on_before_optimizer_step", "on_before_zero_grad", "on_train_batch_end",
    "on_train_batch_start", "on_train_epoch_start",
)  # fmt: skip


@dataclass(frozen=True)
class Options:
    """Options for executing training steps.

    Args:
        steps_per_call: maximum number of optimizer steps per call of Lightning's loop, which then gets a list of
            batches. The steps are the same, with less overhead.
        cuda_graph: whether steps on a CUDA device are recorded once and then replayed; see `cuda_graphs`.
        channels_last: whether training uses channels-last memory format, which can make convolutions faster.
        compile: whether training steps are compiled (`torch.compile`), once per batch size. This takes tens of seconds
            on a CPU, so it only pays off in longer training.
    """

    steps_per_call: int = 1
    cuda_graph: bool = False
    channels_last: bool = False
    compile: bool = False


def replayable(optimizer: Optimizer) -> bool:
    """Returns whether a recorded step of an optimizer is the next one; Adafactor and others count steps on the host."""
    return "capturable" in optimizer.defaults or isinstance(optimizer, torch.optim.SGD)


def settle(options: Options, trainer: Trainer, schedules: list[Any]) -> tuple[Options, str]:
    """Returns options that give the same results as one step per call, and the reason if they allow only one.

    The number of steps per call is reduced to a divisor of everything that counts batches: callbacks with an attribute
    `every_n_batches` (0 allows any number), limits, `val_check_interval` and `max_steps`. It is 1 if anything inspects
    every step.

    Args:
        options: the requested options.
        trainer: not yet running.
        schedules: Lightning's learning-rate schedule configurations.
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
    # A CUDA graph would freeze the learning rate, which a schedule changes.
    return replace(options, steps_per_call=steps, cuda_graph=options.cuda_graph and not schedules), ""


def _wants_single_steps(trainer: Trainer, schedules: list[Any]) -> str:
    """The option or callback that inspects every step, for messages; empty if there is none."""
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
    if any(reason := spaced(schedule) for schedule in schedules):
        return f"model.lr_scheduler.{reason}"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        known = hasattr(callback, "every_n_batches") or isinstance(
            callback, ProgressBar | ModelCheckpoint | ModelSummary
        )
        if not known and any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in STEP_HOOKS):
            return type(callback).__name__
    return ""


def spaced(schedule: dict[str, Any]) -> str:
    """Returns the option by which a schedule skips steps; empty if it does not."""
    every = schedule.get("frequency", 1)
    return f"frequency={every}" if schedule.get("interval", "epoch") == "step" and every != 1 else ""


def fused(make_optimizer: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """Returns an optimizer factory with `fused=True` if the class has it for the device and the user did not choose."""
    if (
        not isinstance(make_optimizer, partial)
        or {"fused", "foreach", "differentiable"} & make_optimizer.keywords.keys()
        or "fused" not in inspect.signature(make_optimizer.func).parameters
    ):
        return make_optimizer
    faster = partial(make_optimizer, fused=True)
    try:
        take_trial_step(faster, device)
    except (RuntimeError, TypeError, ValueError):  # such as Adagrad, whose fused kernel is for the CPU only
        return make_optimizer
    return faster


def take_trial_step(make_optimizer: Callable[..., Any], device: torch.device | None = None) -> Any:
    """Returns an optimizer of a matrix that is made for it, after one step.

    Raises:
        ValueError: if the optimizer's step needs a closure, as that of LBFGS does.
        RuntimeError, TypeError, ValueError: if it refuses its options, or dense gradients, as SparseAdam does.
    """
    matrix = torch.nn.Parameter(torch.zeros(2, 2, device=device))
    matrix.grad = torch.zeros_like(matrix)
    optimizer = make_optimizer([matrix])
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        name = type(optimizer).__name__
        raise ValueError(
            f"{name} evaluates the loss several times per step, each time with other noise; choose another"
        )
    optimizer.step()
    return optimizer
