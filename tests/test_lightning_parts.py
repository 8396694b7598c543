"""Lightning's own parts do what they say, one step a call or several, or are refused before data is read."""

import json
import logging
import re
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import RichProgressBar
from shared import TINY, compose_config
from torch import nn

from vae_lightning import load_run, train
from vae_lightning.building import build
from vae_lightning.errors import UsageError
from vae_lightning.runs import Run
from vae_lightning.runs.loading import LoadedRun
from vae_lightning.training import execute

PLAIN = [option for option in TINY if not option.startswith("callbacks")]
PLAIN += ["callbacks=none", "+callbacks.checkpoints._target_=vae_lightning.callbacks.Checkpoints", "logger=none"]
SEVERAL = ["engine.steps_per_call=3", "engine.channels_last=true"]  # as trainer=fast, but in 32 bits
BOTH = pytest.mark.parametrize("steps", [[], SEVERAL], ids=["default", "several steps a call"])


def run(folder: Path, *options: str) -> LoadedRun:
    return train(compose_config(*PLAIN, *options), folder, progress=False)


@cache
def plain(*options: str) -> LoadedRun:
    """A run that several tests compare theirs with, trained once."""
    with tempfile.TemporaryDirectory() as folder:
        return run(Path(folder), *options)


def callback(name: str, **options: object) -> list[str]:
    target = f"+callbacks.own._target_=pytorch_lightning.callbacks.{name}"
    return [target, *(f"+callbacks.own.{option}={value}" for option, value in options.items())]


def same(one: LoadedRun, other: LoadedRun) -> bool:
    state = other.model.state_dict()
    return all(torch.equal(value, state[name]) for name, value in one.model.state_dict().items())


@BOTH
@pytest.mark.parametrize(
    "averaging",
    [
        callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1),
        callback("EMAWeightAveraging", decay=0.9),
    ],
    ids=["swa", "ema"],
)
def test_averaged_weights_are_tested_and_kept(tmp_path: Path, steps: list[str], averaging: list[str]) -> None:
    averaged = run(tmp_path / "averaged", *steps, *averaging)
    loaded = load_run(tmp_path / "averaged")
    assert same(averaged, loaded)
    assert not same(averaged, plain(*steps))
    if steps:  # which then are single ones
        single = run(tmp_path / "single", "engine.channels_last=true", *averaging)
        assert same(averaged, single)
        assert averaged.metrics["test/elbo"] == single.metrics["test/elbo"]


def test_weights_that_are_averaged_when_training_has_ended_are_kept(tmp_path: Path) -> None:
    """Where there is no batch norm, whose statistics would take another epoch; they are not trained any further."""
    options = [option for option in PLAIN if "width" not in option]
    averaging = callback("StochasticWeightAveraging", swa_lrs=0.01, swa_epoch_start=1)
    config = compose_config(*options, "model=mlp", *averaging)
    averaged = train(config, tmp_path / "averaged", progress=False)
    assert not any(isinstance(module, nn.BatchNorm1d) for module in averaged.model.modules())
    assert same(averaged, load_run(tmp_path / "averaged"))
    longer = compose_config(*options, "model=mlp", *averaging, "trainer.max_epochs=3", "resume=true")
    with pytest.raises(UsageError, match=r"^resume=true: .*averaged cannot be extended, because Stochastic"):
        train(longer, tmp_path / "averaged", progress=False)
    assert same(averaged, load_run(tmp_path / "averaged"))


class Remembers(Callback):
    """Its state is a number of NumPy's, which a checkpoint of tensors and plain values cannot have."""

    def state_dict(self) -> dict[str, Any]:
        return {"best": np.float64(1.0)}


def test_a_state_that_could_not_be_loaded_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^callbacks: the state_dict of Remembers must consist of tensors, numbers, "):
        run(tmp_path / "run", "+callbacks.own._target_=test_lightning_parts.Remembers")
    assert not Run(tmp_path / "run").checkpoint_file.exists()


COSINE = "{_target_: torch.optim.lr_scheduler.CosineAnnealingLR, _partial_: true, T_max: 6}"


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_schedules_are_stepped_as_they_say(tmp_path: Path, interval: str) -> None:
    options = [f"model.lr_scheduler={{scheduler: {COSINE}, interval: {interval}}}"]
    one, several = run(tmp_path / "one", *options), run(tmp_path / "several", *options, "engine.steps_per_call=3")
    assert same(one, several)
    state = torch.load(one.run.checkpoint_file, weights_only=True)
    taken = 6 if interval == "step" else 2
    assert state["lr_schedulers"][0]["last_epoch"] == taken
    run(tmp_path / "parts", *options, "engine.steps_per_call=3", "trainer.max_epochs=1")
    assert same(one, run(tmp_path / "parts", *options, "engine.steps_per_call=3", "resume=true"))


@BOTH
@pytest.mark.parametrize(
    "options",
    [
        ["trainer.gradient_clip_val=0.001"],
        ["trainer.accumulate_grad_batches=2"],
        ["model.optimizer._target_=torch.optim.RMSprop"],
        ["data.validation_size=16", "trainer.val_check_interval=1"],
    ],
    ids=lambda options: options[-1],
)
def test_options_of_the_trainer_do_something(tmp_path: Path, steps: list[str], options: list[str]) -> None:
    found = run(tmp_path / "run", *steps, *options)
    if "interval" not in options[-1]:  # which changes when is validated, not what is trained
        assert not same(found, plain(*steps, *options[:-1]))
    assert found.metrics["epochs"] == 2
    assert found.metrics["steps"] == (4 if "accumulate" in options[0] else 6)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_clipped_gradients(tmp_path: Path, precision: str) -> None:
    """SGD with rate 1: a step is as long as its gradient."""
    sgd = ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=1", "trainer.max_steps=1"]
    config = compose_config(
        *PLAIN, *sgd, f"trainer.precision={precision}", "trainer.gradient_clip_val=0.5", "engine.steps_per_call=3"
    )
    config.run_dir = str(tmp_path)
    torch.manual_seed(0)
    model, data, trainer, _ = build(config)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer.fit(model, datamodule=data)
    moved = torch.cat([(p - b).flatten() for p, b in zip(model.parameters(), before, strict=True)])
    assert moved.norm().item() == pytest.approx(0.5, rel=1e-3)


@BOTH
def test_the_best_checkpoint_is_tested_and_loaded(
    tmp_path: Path, steps: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """By the mode, the epoch with the highest loss: the first."""
    caplog.set_level(logging.INFO)
    best = callback("ModelCheckpoint", monitor="val/loss", mode="max")
    options = [*steps, *best, "data.validation_size=16"]
    found = run(tmp_path / "best", *options)
    assert found.metrics["best_step"] == 3
    assert "best       val/loss" in caplog.text
    assert same(found, load_run(tmp_path / "best"))
    last = torch.load(found.run.checkpoint_file, weights_only=True)
    assert not torch.equal(
        last["state_dict"]["decoder.project.weight"], found.model.state_dict()["decoder.project.weight"]
    )
    first = run(tmp_path / "first", *steps, "trainer.max_epochs=1", "data.validation_size=16")
    assert first.metrics["test/elbo"] == found.metrics["test/elbo"]


def test_a_run_that_is_extended_keeps_the_best_of_before(tmp_path: Path) -> None:
    """What the checkpoint of an epoch says of the best one includes that epoch, and follows a run that is renamed."""
    best = callback("ModelCheckpoint", monitor="val/loss", mode="max")
    options = [*best, "data.validation_size=16"]
    run(tmp_path / "run", *options, "trainer.max_epochs=1")
    (tmp_path / "run").rename(tmp_path / "renamed")
    found = run(tmp_path / "renamed", *options, "resume=true")
    assert found.metrics["epochs"] == 2
    assert found.metrics["best_step"] == 3
    assert found.metrics["test/elbo"] == run(tmp_path / "whole", *options).metrics["test/elbo"]


@BOTH
def test_early_stopping(tmp_path: Path, steps: list[str]) -> None:
    stop = callback("EarlyStopping", monitor="val/elbo", patience=1, mode="min")
    assert (
        run(tmp_path / "run", *steps, *stop, "data.validation_size=16", "trainer.max_epochs=9").metrics["epochs"] == 2
    )


@BOTH
def test_a_trial_leaves_no_result(tmp_path: Path, steps: list[str]) -> None:
    config = compose_config(*PLAIN, *steps, "trainer.fast_dev_run=true")
    outcome = execute(config, Run(tmp_path / "run"))
    assert outcome.metrics["test/elbo"] < 0
    assert {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()} == {
        "config.yaml",
        "environment.json",
    }


@pytest.mark.parametrize("shown", [True, False])
def test_a_progress_bar_of_ones_own_is_shown_where_any_is(tmp_path: Path, shown: bool) -> None:
    config = compose_config(*PLAIN, *callback("RichProgressBar"))
    config.run_dir = str(tmp_path)
    bar = build(config, progress=shown).trainer.progress_bar_callback
    assert isinstance(bar, RichProgressBar) == shown


def test_a_run_says_that_there_is_nothing_to_resume(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    execute(compose_config(*PLAIN, "trainer.fast_dev_run=true", "resume=true"), Run(tmp_path / "typo"))
    assert re.search("^resuming   nothing: .*typo has no checkpoint", caplog.messages[0])


def test_the_model_summary_is_shown_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path / "run", "trainer.enable_model_summary=true", "trainer.max_epochs=1")
    assert "ConvEncoder" in capsys.readouterr().out


@BOTH
def test_validation_in_the_middle_of_an_epoch(tmp_path: Path, steps: list[str]) -> None:
    seen: list[int] = []

    config = compose_config(
        *PLAIN, *steps, "data.validation_size=30", "data.batch_size=11", "trainer.val_check_interval=2"
    )
    config.run_dir = str(tmp_path)
    model, data, trainer, _ = build(config)
    log_dict = model.log_dict
    model.log_dict = lambda metrics, **how: (  # type: ignore[method-assign]
        seen.append(trainer.global_step) if "val/elbo" in metrics else None,
        log_dict(metrics, **how),
    )
    trainer.fit(model, datamodule=data)
    assert sorted(set(seen)) == [2, 4, 6, 8, 10, 12]


def test_a_run_that_is_refused_stays_as_it_is(tmp_path: Path) -> None:
    found = run(tmp_path / "run")
    before = {path: path.read_bytes() for path in found.run.folder.rglob("*") if path.is_file()}
    with pytest.raises(UsageError, match="model.optimizer.lr=0.5"):
        run(tmp_path / "run", "resume=true", "model.optimizer.lr=0.5")
    with pytest.raises(UsageError, match="already holds a run"):
        run(tmp_path / "run")
    assert before == {path: path.read_bytes() for path in found.run.folder.rglob("*") if path.is_file()}
    assert json.loads(found.run.metrics_file.read_text()) == found.metrics
