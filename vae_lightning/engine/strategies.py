"""Lightning strategies that run ordinary training steps several per call, as a CUDA graph, or on several devices.

On any device, the noise of an evaluation depends only on the batch index: the same model always gets the same metrics,
and evaluation does not affect the training that follows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.strategies import DDPStrategy, SingleDeviceStrategy
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from .cuda_graphs import CapturedStep, make_capturable
from .lightning_internals import count_calls, count_steps, do_not_count
from .shards import Shard, sharded
from .step_options import Options

__all__ = ["OneDevice", "SeveralDevices"]

Terms = dict[str, Tensor]


class OneDevice(SingleDeviceStrategy):
    """Training on one device.

    With one step per call, one optimizer and no graph, this is Lightning's automatic optimization. Otherwise the
    strategy takes the steps, in manual optimization, and a call returns a dictionary of vectors, one value per step.

    With several optimizers, each minimises its own term over its own parameters: all gradients come from one forward
    pass, and then all optimizers step.

    Args:
        device: the training device.
        options: how steps are taken.
    """

    def __init__(self, device: torch.device, options: Options) -> None:
        super().__init__(device=device)
        self.options = options
        self._compiled: Callable[[Any], Terms] | None = None
        self._captured: CapturedStep | None = None
        self._names: list[str] = []

    def setup(self, trainer: Trainer) -> None:
        module = self.lightning_module
        assert module is not None
        if self.options.channels_last:
            module.to(memory_format=torch.channels_last)
        if trainer.state.fn == TrainerFn.FITTING:
            if self.options.compile:
                self._compiled = torch.compile(module.training_step, dynamic=False)  # type: ignore[arg-type]
            module.automatic_optimization = not (
                self.options.cuda_graph or self.options.steps_per_call > 1 or _several(module)
            )
        super().setup(trainer)

    @property
    def _by_graph(self) -> bool:
        return self.options.cuda_graph and self._can_capture()

    def _can_capture(self) -> bool:
        # Under float16 the gradient scaler decides on the host whether to skip each step, which cannot be recorded.
        return self.root_device.type == "cuda" and self.precision_plugin.precision != "16-mixed"

    def training_step(self, batch: Any) -> Terms:
        module = self.lightning_module
        assert module is not None
        if module.automatic_optimization:
            return _detached(self._forward(batch))
        if self._by_graph and self._captured is None:
            for optimizer in self.optimizers:
                make_capturable(optimizer)
            self._captured = CapturedStep(lambda batch: self._step(batch, Tensor.backward, self.optimizers))
        data: Any = module.trainer.datamodule  # type: ignore[attr-defined]
        batches = map(data.randomised, batch) if isinstance(batch, list) else [batch]
        steps = torch.stack([self._take_step(one) for one in batches])
        if module.trainer.is_last_batch:
            self._step_schedules("epoch", module.trainer.current_epoch + 1)
        count_calls(module.trainer, len(steps))
        return dict(zip(self._names, steps.unbind(1), strict=True))

    def _forward(self, batch: Any) -> Terms:
        module = self.lightning_module
        assert module is not None
        step = self._compiled or module.training_step
        # One context per step: autocast caches its copies of the weights until the context ends.
        with self.precision_plugin.train_step_context():
            return step(batch)  # type: ignore[return-value]

    def _take_step(self, batch: Any) -> Tensor:
        """Takes a step; returns the terms `(terms,)`."""
        module = self.lightning_module
        assert module is not None
        if self._captured is not None:
            terms = self._captured(batch)
            count_steps(module.trainer, 1)
        else:
            optimizers = module.optimizers()
            optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
            for optimizer in optimizers[1:]:
                do_not_count(optimizer)
            terms = self._step(batch, module.manual_backward, optimizers)
        self._step_schedules("step")
        return terms

    def _step_schedules(self, interval: str, count: int = 0) -> None:
        """Steps the schedules of an interval whose frequency divides the count, as Lightning does in automatic mode."""
        for schedule in self.lr_scheduler_configs:
            if schedule.interval == interval and count % schedule.frequency == 0:
                schedule.scheduler.step()  # type: ignore[call-arg]

    def _step(self, batch: Any, backward: Callable[..., None], optimizers: list[Any]) -> Tensor:
        module = self.lightning_module
        assert module is not None
        terms = self._forward(batch)
        self._names = list(terms)
        for optimizer in optimizers:
            optimizer.zero_grad()
        if len(optimizers) == 1:
            backward(terms[module.minimised[0]])  # type: ignore[index]
        else:
            for left, (name, optimizer) in enumerate(zip(module.minimised, optimizers, strict=True), 1):  # type: ignore[arg-type]
                own = [parameter for group in optimizer.param_groups for parameter in group["params"]]
                backward(terms[name], inputs=own, retain_graph=left < len(optimizers))
        for optimizer in optimizers:
            if module.trainer.gradient_clip_val and isinstance(optimizer, LightningOptimizer):
                clip, norm = module.trainer.gradient_clip_val, module.trainer.gradient_clip_algorithm
                module.clip_gradients(optimizer, clip, norm)  # type: ignore[arg-type]
            optimizer.step()
        return torch.stack([term.detach() for term in terms.values()])

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        with _noise_of(batch_idx):
            return super().validation_step(batch, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        with _noise_of(batch_idx):
            return super().test_step(batch, batch_idx)

    def teardown(self) -> None:
        self._captured = None  # the graph holds the memory of a whole step
        super().teardown()


class SeveralDevices(DDPStrategy):
    """Training in several processes, one per device, with Lightning's automatic optimization.

    Batches are `Shard`s; the model receives the batch of each, within `sharded`.

    Raises:
        RuntimeError: if the data module does not yield shards.
    """

    def batch_to_device(self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0) -> Any:
        if not isinstance(batch, Shard):
            return super().batch_to_device(batch, device, dataloader_idx)
        with sharded(batch):
            return batch._replace(batch=super().batch_to_device(batch.batch, device, dataloader_idx))

    def training_step(self, batch: Any) -> Terms:
        with self._whole(batch) as mine:
            return _detached(super().training_step(mine))  # type: ignore[arg-type]

    def validation_step(self, batch: Any, batch_idx: int) -> Any:
        with _noise_of(batch_idx), self._whole(batch) as mine:
            return super().validation_step(mine, batch_idx)

    def test_step(self, batch: Any, batch_idx: int) -> Any:
        with _noise_of(batch_idx), self._whole(batch) as mine:
            return super().test_step(mine, batch_idx)

    @contextmanager
    def _whole(self, batch: Any) -> Iterator[Any]:
        if self.world_size > 1 and not isinstance(batch, Shard):
            raise RuntimeError("several devices: the data module must yield shards of batches, as ImageDataModule does")
        with sharded(batch) if isinstance(batch, Shard) else nullcontext():
            yield batch.batch if isinstance(batch, Shard) else batch


def _several(module: LightningModule) -> bool:
    return len(module.minimised) > 1  # type: ignore[arg-type]


def _detached(terms: Terms) -> Terms:
    """The terms of a step with all but the loss detached, for Lightning's automatic optimization."""
    return {name: term if name == "loss" else term.detach() for name, term in terms.items()}


@contextmanager
def _noise_of(batch_idx: int) -> Iterator[None]:
    with isolate_rng():
        torch.manual_seed(batch_idx)
        yield
