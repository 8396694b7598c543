"""Learning-rate schedules over the whole training, and its number of optimizer steps, which they depend on."""

import inspect
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

__all__ = ["FollowsMetric", "OneCycle", "WarmupCosine", "left_to_callback", "planned", "planned_steps"]

BEFORE_DATA = 1000  # stands for the number of steps while a schedule is only checked


class WarmupCosine(LambdaLR):
    r"""A linear rise to the optimizer's rate, then half a cosine down to a share of it.

    After \(t\) of \(T\) steps, \(w\) of them for the rise, the rate is multiplied by

    .. math:: \frac{t + 1}{w + 1} \;\text{for}\; t < w, \quad
        f + \frac{1 - f}{2} \left(1 + \cos \pi \frac{t - w}{T - w}\right) \;\text{otherwise.}

    A run that is extended continues at the rate of the longer schedule.

    Args:
        optimizer: its rate is the highest.
        total_steps: T; see `planned`.
        warmup: w, as a share of T: at least 0 and less than 1.
        final: f, from 0 to 1.

    Source: Loshchilov and Hutter (2017), https://arxiv.org/abs/1608.03983.
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> None:
        if not 0 <= warmup < 1:
            raise ValueError(f"warmup: must be a share of the training, at least 0 and less than 1, got {warmup}")
        if not 0 <= final <= 1:
            raise ValueError(f"final: must be a share of the learning rate, from 0 to 1, got {final}")
        rise = int(warmup * total_steps)

        # A plain function is not part of the schedule's state, which would bring back the length of a shorter run.
        def factor(step: int) -> float:
            if step < rise:
                return (step + 1) / (rise + 1)
            done = min(1.0, (step - rise) / (total_steps - rise))
            return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

        super().__init__(optimizer, factor)


class OneCycle(OneCycleLR):
    """PyTorch's 1cycle schedule, with the optimizer's rate as the highest; see `torch.optim.lr_scheduler.OneCycleLR`.

    A run that is extended continues at the rate of the longer schedule.

    Args:
        optimizer: its rate is the highest.
        total_steps: length of the cycle; see `planned`.
        pct_start: share of the cycle in which the rate rises.
        cycle_momentum: whether momentum, or Adam's first beta, falls while the rate rises, and rises while it falls.
        div_factor: the highest rate divided by the first.
        final_div_factor: the first rate divided by the last.

    Source: Smith and Topin (2018), https://arxiv.org/abs/1708.07120.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        total_steps: int,
        pct_start: float = 0.3,
        cycle_momentum: bool = True,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
    ) -> None:
        super().__init__(
            optimizer,
            [group["lr"] for group in optimizer.param_groups],
            total_steps=total_steps,
            pct_start=pct_start,
            cycle_momentum=cycle_momentum,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the position in the cycle, but not its length, which an extended run changes."""
        position = {name: state_dict[name] for name in ("last_epoch", "_step_count", "_last_lr")}
        super().load_state_dict(self.state_dict() | position)


class FollowsMetric(Callback):
    """Steps a schedule by a metric, such as PyTorch's `ReduceLROnPlateau`, at the end of an epoch.

    Lightning steps it after the epoch's checkpoint, which therefore lacks the step, and in manual optimization not at
    all.

    Args:
        monitor: the metric.
        frequency: every how many epochs.
        strict: whether it is an error that the metric has not been measured yet, instead of no step.
    """

    every_n_batches = 0

    def __init__(self, monitor: str, frequency: int = 1, strict: bool = True) -> None:
        self.monitor = monitor
        self.frequency = frequency
        self.strict = strict

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.frequency:
            return
        if self.monitor not in trainer.callback_metrics:
            if not self.strict:
                return
            known = ", ".join(trainer.callback_metrics)
            raise ValueError(f"model.lr_scheduler.monitor={self.monitor}: is not measured; the metrics are {known}")
        for schedule in trainer.lr_scheduler_configs:
            schedule.scheduler.step(trainer.callback_metrics[self.monitor])  # type: ignore[arg-type]


def left_to_callback(schedule: Mapping[str, Any]) -> tuple[dict[str, Any], list[Callback]]:
    """Returns a schedule's configuration for Lightning and, if it follows a metric, the callback that steps it.

    Raises:
        ValueError: for a schedule that is to follow a metric after every n-th step.
    """
    found = {name: value for name, value in schedule.items() if name not in ("monitor", "strict", "reduce_on_plateau")}
    if schedule.get("monitor") is None:
        return found, []
    if schedule.get("interval", "epoch") != "epoch":
        raise ValueError(f"model.lr_scheduler.interval={schedule['interval']}: must be epoch to follow a metric")
    follower = FollowsMetric(schedule["monitor"], schedule.get("frequency") or 1, schedule.get("strict", True))
    return {**found, "interval": "epoch", "frequency": sys.maxsize, "reduce_on_plateau": False}, [follower]


def planned(make_scheduler: Callable[..., Any], trainer: Trainer) -> Callable[..., Any]:
    """Returns a scheduler factory that passes on `total_steps` if the schedule takes it and the user has not set it."""
    parameters = inspect.signature(make_scheduler).parameters
    if "total_steps" not in parameters or "total_steps" in getattr(make_scheduler, "keywords", {}):
        return make_scheduler

    # Not a partial, which would be copied together with the trainer by callbacks that copy the model.
    def make(optimizer: Optimizer) -> Any:
        return make_scheduler(optimizer, total_steps=planned_steps(trainer))

    return make


def planned_steps(trainer: Trainer) -> int:
    """Returns the number of optimizer steps of the whole training, several per call or not.

    Lightning's `estimated_stepping_batches` counts calls, and loads the training data before a resumed run knows where
    in an epoch it continues; it is used only for data modules without `training_batches`.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    epochs, most = trainer.max_epochs or -1, trainer.max_steps
    if epochs < 0 and most < 0:
        raise ValueError("needs the length of the training: set trainer.max_epochs or trainer.max_steps")
    if data is None:
        return BEFORE_DATA
    if not hasattr(data, "training_batches"):
        return int(trainer.estimated_stepping_batches)
    limit, batches = trainer.limit_train_batches, data.training_batches
    batches = min(batches, limit * data.batches_per_call) if type(limit) is int else int(batches * limit)
    if epochs < 0:
        return most
    steps = math.ceil(batches / trainer.accumulate_grad_batches) * epochs
    return min(steps, most) if most > 0 else steps
