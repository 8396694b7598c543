"""The engine: noise of the whole batch, what keeps several steps out of a call, and what is private of Lightning."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint, StochasticWeightAveraging
from shared import TINY
from torch import Tensor, nn
from torch.distributions import (
    Categorical,
    Gamma,
    Gumbel,
    LogNormal,
    MultivariateNormal,
    Normal,
    Uniform,
)
from torch.nn import functional
from torch.utils.data import DataLoader

from vae_lightning import compose, train
from vae_lightning.callbacks import SampleGrids
from vae_lightning.data.batch import Batch
from vae_lightning.engine import devices
from vae_lightning.engine.lightning_internals import (
    count_calls,
    count_steps,
    do_not_count,
    is_trial,
    starts_at,
    steps_between_checkpoints,
    validates_next,
)
from vae_lightning.engine.noise import NoiseError, WholeBatchNoise
from vae_lightning.engine.shards import Shard, sharded
from vae_lightning.engine.step_options import Options, fused, replayable, settle, take_trial_step

X = torch.rand(7, 5, 4, generator=torch.Generator().manual_seed(1))


def draws() -> dict[str, Callable[[Tensor], Tensor]]:
    """Noise for images `(B, 5, 4)`, as posteriors, dropouts and augmentations draw it."""
    return {
        "dropout": lambda x: functional.dropout(x, 0.5),
        "rand_like": torch.rand_like,
        "randn": lambda x: torch.randn(len(x), 3),
        "bernoulli": torch.bernoulli,
        "normal": lambda x: Normal(x, 1.0).rsample(),
        "normal, several": lambda x: Normal(x, 1.0).rsample((9,)),
        "full covariance": lambda x: MultivariateNormal(x[:, 0], torch.eye(4)).rsample((9,)),
        "categorical": lambda x: Categorical(logits=x[:, 0]).sample(),
        "categorical, prior": lambda x: Categorical(logits=X[0, 0]).sample((len(x),)),
        "gumbel": lambda x: Gumbel(x, 1.0).rsample(),
        "log-normal": lambda x: LogNormal(x, 1.0).rsample(),
        "uniform": lambda x: Uniform(x, x + 1).rsample(),
        "label": lambda x: torch.rand(len(x)) < 0.5,
        "flip": lambda x: torch.where(torch.rand(len(x), 1, 1) < 0.5, x.flip(2), x),
    }


@pytest.mark.parametrize("name", draws())
def test_each_process_gets_its_share_of_the_whole_batchs_noise(name: str) -> None:
    draw = draws()[name]
    torch.manual_seed(0)
    whole = draw(X)
    state = torch.get_rng_state()
    axis = whole.shape.index(7)
    for start, end in ((0, 3), (3, 7)):
        torch.manual_seed(0)
        with sharded(Shard(Batch(X[start:end]), start, 7)):
            mine = draw(X[start:end])
        assert torch.equal(mine, whole.narrow(axis, start, end - start))
        assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("channels", [1, 3])
def test_feature_maps_with_as_many_channels_as_images(channels: int) -> None:
    maps = torch.rand(7, channels, 4, 4)
    torch.manual_seed(0)
    whole = functional.dropout(maps)
    for start, end in ((0, channels), (channels, 7)):
        torch.manual_seed(0)
        with sharded(Shard(Batch(maps[start:end]), start, 7)):
            assert torch.equal(functional.dropout(maps[start:end]), whole[start:end])


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda x: torch.randn(12), "torch.randn draws noise of shape .12,."),
        (lambda x: Gamma(x, 1.0).rsample(), "more numbers for some images than for others"),
        (lambda x: torch.randn(3, 3, 8), "with two such axes"),
        (lambda x: torch.randperm(3), "torch.randperm"),
    ],
)
def test_noise_that_cannot_be_shared_out_is_refused(draw: Callable[[Tensor], Tensor], message: str) -> None:
    with WholeBatchNoise(3, 0, 7), pytest.raises(NoiseError, match=message):
        draw(X[:3])


def test_an_explicit_generator_is_left_alone() -> None:
    with WholeBatchNoise(3, 0, 7):
        mine = torch.randn(12, generator=torch.Generator().manual_seed(3))
        assert torch.equal(functional.dropout(X[:3], 0.5, training=False), X[:3])
    assert torch.equal(mine, torch.randn(12, generator=torch.Generator().manual_seed(3)))


def trainer_with(*callbacks: Callback, **options: object) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet, **options)


class WatchesSteps(Callback):
    def on_before_zero_grad(self, *_: object) -> None: ...


STEPWISE = {"interval": "step", "frequency": 1}


@pytest.mark.parametrize(
    ("callbacks", "options", "schedules", "steps"),
    [
        ([], {}, [], 50),
        ([SampleGrids(every_n_batches=20)], {}, [], 10),
        ([EarlyStopping("val/elbo")], {}, [], 50),
        ([ModelCheckpoint(every_n_train_steps=4)], {}, [], 2),
        ([ModelCheckpoint()], {}, [], 50),
        ([], {"max_steps": 30}, [], 10),
        ([], {"limit_train_batches": 15}, [], 5),
        ([], {"val_check_interval": 4}, [], 2),
        ([], {"val_check_interval": 0.5}, [], 1),
        ([], {"limit_train_batches": 0.5}, [], 1),
        ([], {"accumulate_grad_batches": 2}, [], 1),
        ([], {"overfit_batches": 4}, [], 1),
        ([], {"fast_dev_run": True}, [], 1),
        ([EMAWeightAveraging()], {}, [], 1),
        ([StochasticWeightAveraging(0.1)], {}, [], 1),
        ([WatchesSteps()], {}, [], 1),
        ([], {}, [STEPWISE], 50),
        ([], {}, [{"interval": "epoch"}], 50),
        ([], {}, [{**STEPWISE, "frequency": 2}], 1),
    ],
    ids=lambda value: ",".join(type(part).__name__ for part in value) if isinstance(value, list) else str(value),
)
def test_steps_per_call(callbacks: list[Callback], options: dict, schedules: list[dict], steps: int) -> None:
    trainer = trainer_with(*callbacks, **options)
    limits = trainer.limit_train_batches, trainer.val_check_interval
    found, reason = settle(Options(steps_per_call=50, cuda_graph=True), trainer, schedules)
    assert found.steps_per_call == steps
    assert bool(reason) == (steps == 1)
    assert found.cuda_graph == (steps > 1 and not schedules)
    for before, after in zip(limits, (trainer.limit_train_batches, trainer.val_check_interval), strict=True):
        assert after == (before // steps if type(before) is int else before)


@pytest.mark.parametrize(
    ("name", "replayed"), [("Adam", True), ("SGD", True), ("Adafactor", False), ("Adagrad", False)]
)
def test_optimizers_whose_recorded_step_is_the_next_one(name: str, replayed: bool) -> None:
    """The others would repeat the step size of the recorded step."""
    optimizer = take_trial_step(partial(getattr(torch.optim, name), lr=0.1))
    assert replayable(optimizer) == replayed
    counts = [value for state in optimizer.state.values() for key, value in state.items() if key == "step"]
    on_host = any(not isinstance(count, torch.Tensor) or count.device.type == "cpu" for count in counts)
    assert replayed == (not on_host or "capturable" in optimizer.defaults)


@pytest.mark.parametrize(("seconds", "said"), [(2.0, True), (0.5, False)])
def test_bfloat16_that_is_slow_is_told(
    seconds: float, said: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(devices, "_seconds", lambda dtype: seconds if dtype == torch.bfloat16 else 1.0)
    options = [option for option in TINY if not option.startswith("callbacks.")]
    caplog.set_level("INFO")
    train(compose(*options, "trainer=fast", "callbacks=none", "logger=none"), tmp_path, progress=False)
    message = "precision  bfloat16 has 0.5 times the speed of 32 bits on this CPU"
    assert (message in caplog.text) is said


def test_fused_optimizers() -> None:
    parameters = [nn.Parameter(torch.ones(2))]
    cpu = torch.device("cpu")
    adam = fused(partial(torch.optim.Adam, lr=0.1), cpu)(parameters)
    assert adam.defaults["fused"]
    assert not fused(partial(torch.optim.Adam, lr=0.1, foreach=True), cpu)(parameters).defaults["fused"]
    assert fused(partial(torch.optim.RMSprop, lr=0.1), cpu)(parameters).defaults["lr"] == 0.1


class Two(LightningModule):
    """Two optimizers, of which only the first counts."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.layer = nn.Linear(2, 1)
        self.seen: list[tuple[int, int, int]] = []
        self.validated_next: list[bool] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        one, other = self.optimizers()
        do_not_count(other)
        loss = self.layer(batch).sum()
        for optimizer in (one, other):
            optimizer.zero_grad()
        self.manual_backward(loss)
        one.step()
        other.step()
        self.seen.append((self.global_step, *starts_at(self.trainer)))
        self.validated_next.append(validates_next(self.trainer))
        if batch_idx == 1:  # as if this call had replayed three recorded steps
            count_steps(self.trainer, 3)
            count_calls(self.trainer, 4)

    def on_train_epoch_end(self) -> None:
        self.log("epoch_end", 1.0)

    def validation_step(self, batch: Tensor) -> None: ...

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([parameter], lr=0.1) for parameter in self.parameters()]


def test_what_is_private_of_lightning(tmp_path: Path) -> None:
    from pytorch_lightning.loggers import CSVLogger

    class Logger(CSVLogger):
        steps: list[int | None] = []

        def log_metrics(self, metrics: dict, step: int | None = None) -> None:
            self.steps.append(step)

    model, logger = Two(), Logger(tmp_path)
    trainer = Trainer(
        accelerator="cpu", logger=logger, max_epochs=1, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, val_check_interval=2, num_sanity_val_steps=0,
    )  # fmt: skip
    trainer.fit(model, DataLoader(torch.ones(3, 2)), DataLoader(torch.ones(1, 2)))
    assert model.validated_next == [False, True, False]
    assert model.seen == [(1, 0, 0), (2, 0, 1), (6, 0, 2)]
    assert trainer.global_step == 6
    assert logger.steps == [5]  # counted from 0: three calls, of which one stood for four steps
    assert not is_trial(trainer)
    assert is_trial(trainer_with(fast_dev_run=True))
    assert steps_between_checkpoints(ModelCheckpoint(every_n_train_steps=7)) == 7
    assert steps_between_checkpoints(ModelCheckpoint()) == steps_between_checkpoints(SampleGrids()) == 0
