"""Learning-rate schedules: their rates, their length, and what steps them; optimizers that can and cannot be used."""

import csv
import inspect
from functools import partial
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from shared import compose_config
from test_lightning_parts import PLAIN, SEVERAL, run, same
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from vae_lightning import train
from vae_lightning.building import build
from vae_lightning.data.batch import Batch
from vae_lightning.engine.schedules import OneCycle, WarmupCosine, planned, planned_steps
from vae_lightning.engine.step_options import fused, take_trial_step
from vae_lightning.errors import UsageError
from vae_lightning.report.curves import learning_curves
from vae_lightning.runs.loading import LoadedRun, load_run

SCHEDULES = {
    "none": [],
    "cosine": [],
    "warmup_cosine": ["model.lr_scheduler.scheduler.warmup=0.4"],
    "one_cycle": [],
    # So that every validation but the first lowers the rate.
    "plateau": ["data.validation_size=16", *(f"model.lr_scheduler.scheduler.{o}" for o in ("patience=0", "mode=min"))],
    "step": ["model.lr_scheduler.scheduler.step_size=1"],
}
# Three steps an epoch; the default rate is 0.001.
RATES = {
    "cosine": [1.0, 0.9330, 0.75, 0.5, 0.25, 0.0670],
    "warmup_cosine": [1 / 3, 2 / 3, 1.0, 0.8536, 0.5, 0.1464],
    "plateau": [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 0.5, 0.5],
    "step": [1.0, 1.0, 1.0, 0.5, 0.5, 0.5],
}


def rates(found: LoadedRun) -> list[float]:
    steps, values = learning_curves(found.run)["learning_rate"]
    assert steps == list(range(1, len(steps) + 1))
    return values


def walk(make: type[LRScheduler], steps: int, **options: object) -> list[float]:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))], lr=0.5)
    schedule, found = make(optimizer, **options), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_rates_are_pytorchs() -> None:
    ours = walk(WarmupCosine, 20, total_steps=20, final=0.1)
    assert ours == pytest.approx(walk(CosineAnnealingLR, 20, T_max=20, eta_min=0.05))
    risen = walk(WarmupCosine, 25, total_steps=25, warmup=0.2, final=0.1)
    assert risen[:5] == pytest.approx([0.5 * n / 6 for n in range(1, 6)])
    assert risen[5:] == pytest.approx(ours)
    assert walk(OneCycle, 20, total_steps=20) == walk(OneCycleLR, 20, max_lr=0.5, total_steps=20)


@pytest.mark.parametrize("options", [{"warmup": 1.0}, {"warmup": -0.1}, {"final": 2.0}], ids=str)
def test_options_out_of_range(options: dict) -> None:
    name, value = next(iter(options.items()))
    with pytest.raises(UsageError, match=f"model.lr_scheduler: {name}: must be .* got {value}"):
        build(
            compose_config(
                *PLAIN, "schedule=warmup_cosine", f"model.lr_scheduler.scheduler.{name}={value}", "run_dir=x"
            )
        )


@pytest.mark.parametrize(
    ("options", "steps"),
    [
        ([], 16),
        (["trainer.max_steps=6"], 6),
        (["trainer.max_epochs=null", "trainer.max_steps=40"], 40),
        (["trainer.limit_train_batches=6"], 12),
        (["trainer.limit_train_batches=0.5"], 8),
        (["trainer.accumulate_grad_batches=3"], 6),
        (["trainer.overfit_batches=2"], 4),
        (["trainer.fast_dev_run=true"], 1),
        (["data.validation_size=10"], 14),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
@pytest.mark.parametrize("per_call", [1, 4])
def test_the_number_of_steps_is_known_before_training(
    tmp_path: Path, options: list[str], steps: int, per_call: int
) -> None:
    """Of 90 images in batches of 12, in 2 epochs."""
    settings = ["data.source.train_size=90", "data.batch_size=12", f"engine.steps_per_call={per_call}", *options]
    config = compose_config(*PLAIN, *settings)
    config.run_dir = str(tmp_path)
    _, data, trainer, _ = build(config)
    data.trainer, trainer.datamodule = trainer, data
    data.setup()
    assert planned_steps(trainer) == steps


@pytest.mark.parametrize(
    "choice",
    [pytest.param(choice, marks=() if choice in ("cosine", "plateau") else pytest.mark.slow) for choice in SCHEDULES],
)
def test_each_choice_one_step_a_call_or_several(tmp_path: Path, choice: str) -> None:
    csvs = [
        "+logger.csv={_target_: pytorch_lightning.loggers.CSVLogger, save_dir: '${run_dir}', name: csv, version: ''}"
    ]
    options = [f"schedule={choice}", *SCHEDULES[choice], f"trainer.max_epochs={3 if choice == 'plateau' else 2}"]
    one = run(tmp_path / "one", *options, *csvs)
    several = run(tmp_path / "several", *options, *SEVERAL[:1])
    assert same(one, several)
    assert learning_curves(one.run) == learning_curves(several.run)
    if choice == "none":
        assert "learning_rate" not in learning_curves(one.run)
        return
    expected = RATES.get(choice) or [1000 * rate for rate in walk(OneCycleLR, 6, max_lr=0.001, total_steps=6)]
    assert [1000 * rate for rate in rates(one)] == pytest.approx(expected, abs=1e-4)
    with (one.run.folder / "csv" / "metrics.csv").open() as file:
        logged = [float(row["train/learning_rate"]) for row in csv.DictReader(file) if row["train/learning_rate"]]
    assert logged == pytest.approx(rates(one))
    assert same(one, load_run(one.run.folder))


@pytest.mark.parametrize("choice", ["cosine", "one_cycle"])
def test_a_run_that_is_extended_has_the_rates_of_the_longer_schedule(tmp_path: Path, choice: str) -> None:
    options = [f"schedule={choice}", *SEVERAL]
    run(tmp_path / "run", *options, "trainer.max_epochs=1")
    extended = rates(run(tmp_path / "run", *options, "resume=true", "trainer.max_epochs=3"))
    longer = [0.002 * rate for rate in walk(CosineAnnealingLR, 9, T_max=9)]
    if choice == "one_cycle":
        longer = walk(OneCycleLR, 9, max_lr=0.001, total_steps=9)
    assert extended[4:] == pytest.approx(longer[4:])  # the first step still has the rate that was saved


@pytest.mark.parametrize("choice", ["step", "plateau"])
def test_several_optimizers_each_have_a_schedule(tmp_path: Path, choice: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "foreign"))
    own = ["model.objective._target_=own.Adversarial", "+model.objective.latent_dim=2", "+model.objective.lr=0.01"]
    own += [f"trainer.max_epochs={3 if choice == 'plateau' else 2}"]
    found = run(tmp_path / "run", *own, f"schedule={choice}", *SCHEDULES[choice])
    curves = learning_curves(found.run)
    (other,) = {name for name in curves if name.startswith("learning_rate_")}
    assert [1000 * rate for rate in rates(found)] == pytest.approx(RATES[choice], abs=1e-4)
    assert [100 * rate for rate in curves[other][1]] == pytest.approx(RATES[choice], abs=1e-4)


def test_a_metric_that_is_not_measured_is_an_error_if_strict(tmp_path: Path) -> None:
    options = ["schedule=plateau", "model.lr_scheduler.monitor=own", "trainer.max_epochs=1"]
    with pytest.raises(ValueError, match="model.lr_scheduler.monitor=own: is not measured; the metrics are train/"):
        run(tmp_path / "strict", *options)
    assert rates(run(tmp_path / "other", *options, "+model.lr_scheduler.strict=false")) == [0.001] * 3


def test_a_schedule_needs_an_end(tmp_path: Path) -> None:
    endless = ["trainer.max_epochs=null", "trainer.max_time=00:00:01:00", "run_dir=x"]
    with pytest.raises(UsageError, match="model.lr_scheduler: needs .*: set trainer.max_epochs or trainer.max_steps"):
        build(compose_config(*PLAIN, "schedule=cosine", *endless))
    build(compose_config(*PLAIN, "schedule=step", *endless))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["schedule=plateau"], "model.lr_scheduler.monitor=val/elbo: there are no validation images; hold some out"),
        (
            ["schedule=plateau", "data.validation_size=9", "trainer.limit_val_batches=0"],
            "model.lr_scheduler.monitor=val/elbo: is never measured with trainer.limit_val_batches=0; null validates",
        ),
        (
            ["schedule=plateau", "data.validation_size=9", "trainer.check_val_every_n_epoch=3"],
            "monitor=val/elbo: is never measured, because training ends before epoch 3; set trainer.check_val_every_n",
        ),
        (["schedule=step", "model.lr_scheduler.scheduler.step_size=0"], "step_size=0: must be a whole number of at le"),
        (["model.lr_scheduler={interval: step}"], "model.lr_scheduler also needs scheduler; schedule=cosine"),
        (["schedule=one_cycle", "model.optimizer._target_=torch.optim.Adagrad"], "model.lr_scheduler: optimizer must"),
        (
            ["schedule=plateau", "data.validation_size=9", "model.lr_scheduler.interval=step"],
            "model.lr_scheduler.interval=step: must be epoch to follow a metric",
        ),
        (
            ["model/posterior=none", "model/objective=wae_mmd", "schedule=plateau", "data.validation_size=9"],
            "model.lr_scheduler.monitor=val/elbo: codes without noise have no rate and no bound; monitor val/loss",
        ),
    ],
)
def test_schedules_that_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        train(compose_config(*PLAIN, *options), tmp_path / "run", progress=False)
    assert message in str(caught.value)


def test_a_length_that_the_user_sets_is_kept() -> None:
    optimizer = torch.optim.Adam([nn.Parameter(torch.ones(1))])
    trainer = Trainer(logger=False, max_epochs=1, accelerator="cpu")
    mine = partial(WarmupCosine, total_steps=7)
    assert planned(mine, trainer) is mine
    assert planned(CosineAnnealingLR, trainer) is CosineAnnealingLR
    assert isinstance(planned(partial(WarmupCosine), trainer)(optimizer), WarmupCosine)


OPTIMIZERS = sorted(
    name
    for name, found in vars(torch.optim).items()
    if inspect.isclass(found) and issubclass(found, torch.optim.Optimizer) and found is not torch.optim.Optimizer
)
REFUSED = {
    "LBFGS": "LBFGS evaluates the loss several times per step",
    "SparseAdam": "SparseAdam does not support dense gradients",
    "Muon": "Muon only supports 2D parameters",
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_of_pytorch_takes_steps_or_is_refused(tmp_path: Path, name: str) -> None:
    config = compose_config(*PLAIN, f"model.optimizer._target_=torch.optim.{name}")
    config.run_dir = str(tmp_path)
    if name in REFUSED:
        with pytest.raises(UsageError, match=f"model.optimizer: {REFUSED[name]}"):
            build(config)
        return
    model, *_ = build(config)
    optimizer = model.configure_optimizers()[0]
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model.training_step(Batch(torch.rand(4, 1, 28, 28)))["loss"].backward()
    optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    has_kernel = "fused" in inspect.signature(getattr(torch.optim, name)).parameters
    assert bool(optimizer.defaults.get("fused")) == has_kernel


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in REFUSED])
def test_every_optimizer_trains_and_resumes(tmp_path: Path, name: str) -> None:
    options = [f"model.optimizer._target_=torch.optim.{name}", *SEVERAL[:1]]
    whole = run(tmp_path / "whole", *options)
    run(tmp_path / "parts", *options, "trainer.max_epochs=1")
    assert same(whole, run(tmp_path / "parts", *options, "resume=true"))


class Elsewhere(torch.optim.SGD):
    """An optimizer whose fused kernel is not for this device."""

    def __init__(self, params: list, lr: float, fused: bool = False) -> None:
        super().__init__(params, lr=lr)
        self.fused = fused

    def step(self, closure: object = None) -> None:
        if self.fused:
            raise RuntimeError("`fused=True` requires all the params to be on a GPU")


def test_a_fused_kernel_is_tried() -> None:
    assert not take_trial_step(fused(partial(Elsewhere, lr=0.1), torch.device("cpu"))).fused
