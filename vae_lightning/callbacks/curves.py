"""The loss terms and learning rates during training: checked for divergence, logged, and saved as curves."""

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from ..engine.lightning_internals import is_trial
from ..runs import write_file
from .divergence import refuse_divergence, refuse_values
from .drawing import run_of

__all__ = ["Curves"]


class Curves(Callback):
    """Logs and saves the loss terms at every n-th optimizer step (the trainer's `log_every_n_steps`).

    With a schedule, the learning rate of the step is logged and saved like a term: `learning_rate`, and for further
    optimizers `learning_rate_<term>`.

    `figures/curves.npz`, written with or without a logger, holds an array of values for each term, and the optimizer
    steps that they belong to as `<term>_steps`. Checkpoints include the curves.

    On a CPU every step is checked at once. On a GPU, values are read back only when some are logged, together with
    those of the preceding steps.

    Raises:
        DivergenceError: at the first step with a NaN or infinite term, and before a checkpoint with such weights would
            be written.
    """

    every_n_batches = 0

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}
        self._unseen: list[tuple[int, dict[str, Tensor], dict[str, list[float]]]] = []
        self._rates: dict[str, list[float]] = {}  # of the steps of this call
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._step = trainer.global_step

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.lr_scheduler_configs:
            number = trainer.optimizers.index(optimizer)
            name = f"learning_rate_{pl_module.minimised[number]}" if number else "learning_rate"  # type: ignore[index]
            self._rates.setdefault(name, []).append(float(optimizer.param_groups[0]["lr"]))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs, batch, batch_idx: int) -> None:
        terms = {name: value.detach().reshape(-1) for name, value in outputs.items()}
        terms["loss"] = terms["loss"] * trainer.accumulate_grad_batches  # undoes Lightning's division
        step, steps = trainer.global_step, len(terms["loss"])
        self._unseen.append((step - steps + 1, terms, self._rates))
        self._rates = {}
        logged = range(step - steps + 1, step + 1) if step != self._step else ()  # none while gradients accumulate
        self._step = step
        due = [number for number in logged if trainer.log_every_n_steps and number % trainer.log_every_n_steps == 0]  # type: ignore[attr-defined]
        if due or pl_module.device.type == "cpu":
            self._look(trainer, pl_module, due)

    def _look(self, trainer: Trainer, module: LightningModule, due: Iterable[int] = ()) -> None:
        due = set(due)
        unseen, self._unseen = self._unseen, []
        for first, terms, rates in unseen:
            table = torch.stack(list(terms.values()), 1).tolist()
            for number, row in enumerate(table):
                step, found = first + number, dict(zip(terms, row, strict=True))
                refuse_values(found, f"step {step}: ")
                if step in due:
                    found |= {name: values[number] for name, values in rates.items()}
                    self._log(trainer, module, step, found)

    def _log(self, trainer: Trainer, module: LightningModule, step: int, terms: dict[str, float]) -> None:
        self.steps.append(step)
        for name, value in terms.items():
            self.values.setdefault(name, []).append(value)
        # Lightning's own logging would label the values with the number of calls, not of steps.
        metrics = {f"train/{name}": value for name, value in terms.items()}
        module.log_dict(metrics, prog_bar=True, logger=False, batch_size=1)
        for logger in trainer.loggers:
            logger.log_metrics(metrics | {"epoch": trainer.current_epoch}, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.steps and trainer.is_global_zero and not is_trial(trainer):
            arrays: dict[str, Any] = {}
            for name, values in self.values.items():
                arrays |= {name: np.array(values), f"{name}_steps": np.array(self.steps)}
            content = io.BytesIO()
            np.savez_compressed(content, **arrays)
            file = run_of(trainer).curves_file
            file.parent.mkdir(parents=True, exist_ok=True)
            write_file(file, content.getvalue())

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer, pl_module)
        refuse_divergence(pl_module)

    def state_dict(self) -> dict[str, Any]:
        values = {name: torch.tensor(values, dtype=torch.float64) for name, values in self.values.items()}
        return {"steps": torch.tensor(self.steps), "values": values}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = state_dict["steps"].tolist()
        self.values = {name: values.tolist() for name, values in state_dict["values"].items()}
