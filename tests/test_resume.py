"""A resumed run is bit-for-bit identical to an uninterrupted one."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import Callback, seed_everything
from shared import TINY, UNMEASURED, compose_config, run_command, start_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lightning import load_run
from vae_lightning import train as train_run
from vae_lightning.building import build
from vae_lightning.callbacks import Checkpoints
from vae_lightning.engine.signals import Interrupted, Interruption
from vae_lightning.errors import UsageError
from vae_lightning.report.picture import learning_curves
from vae_lightning.runs import Run
from vae_lightning.runs.resuming import steps_taken_at

SETTINGS = ["data.source.train_size=90", "data.batch_size=12", "trainer.log_every_n_steps=2"]
SETTINGS += ["callbacks.losses.every_n_batches=4", "callbacks.grids.every_n_batches=4"]
SETTINGS += [option for option in UNMEASURED if option != "~callbacks.grids"]


LOWERS = ["model.lr_scheduler.scheduler.patience=0", "model.lr_scheduler.scheduler.mode=min"]


class StopAfter(Callback):
    """As a signal does, which arrives while a step is being taken."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, *_: object) -> None:
        if trainer.global_step < self.step <= trainer.global_step + trainer.datamodule.batches_per_call:
            (keeper,) = (callback for callback in trainer.callbacks if isinstance(callback, Checkpoints))
            keeper.interruption.number = signal.SIGTERM


@contextmanager
def interruption(trainer: Any) -> Iterator[None]:
    with Interruption(trainer, keeps_state=True) as found:
        for callback in trainer.callbacks:
            if isinstance(callback, Checkpoints):
                callback.interruption = found
        yield


def train(folder: Path, *options: str, stop_after: int = 0) -> dict[str, Any] | None:
    """What a training leaves: weights, optimizer state, metrics, curves and grids; None if it was stopped."""
    config = compose_config(*TINY, *SETTINGS, *options)
    config.run_dir = str(folder)
    seed_everything(0, verbose=False)
    run = Run(folder)
    checkpoint = run.checkpoint_file if run.checkpoint_file.is_file() else None
    model, data, trainer, stopwatch = build(config, steps_taken_at(checkpoint))
    if stop_after:
        trainer.callbacks.insert(0, StopAfter(stop_after))
    with interruption(trainer):
        try:
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except Interrupted:
            return None
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return {
        "weights": {name: value.clone() for name, value in model.state_dict().items()},
        "optimizer": trainer.optimizers[0].state_dict()["state"],
        "metrics": metrics,
        "validated": stopwatch.validated,
        "images": stopwatch.images,
        "steps": trainer.global_step,
        "curves": learning_curves(run),
        "grids": {path.name: path.read_bytes() for path in run.grids().values()},
    }


def events(folder: Path) -> list[tuple[str, int, float]]:
    """What TensorBoard shows as curves: name, step and value."""
    found = EventAccumulator(str(Run(folder).tensorboard)).Reload()
    return [(tag, event.step, event.value) for tag in found.Tags()["scalars"] for event in found.Scalars(tag)]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other


@pytest.mark.parametrize(
    "stops",
    [[3, 9, 13], *(pytest.param([stop], marks=pytest.mark.slow) for stop in (1, 4, 8, 11, 16))],
    ids=str,
)
def test_from_anywhere(tmp_path: Path, stops: list[int]) -> None:
    """8 steps an epoch, 2 epochs; stopped several times, at the end, in the first step, within an epoch, at its end."""
    expected = train(tmp_path / "whole")
    for stop in stops:
        assert train(tmp_path / "parts", stop_after=stop) is None
    found = train(tmp_path / "parts")
    assert expected is not None
    assert found is not None
    assert expected["steps"] == 16
    different = [name for name in expected if not same(expected[name], found[name])]
    assert different == []


def test_what_was_logged_after_the_checkpoint_is_logged_once(tmp_path: Path) -> None:
    """As after a kill: events and grids reach further than the checkpoint."""
    expected = train(tmp_path / "whole")
    train(tmp_path / "parts", stop_after=5)
    checkpoint = Run(tmp_path / "parts").checkpoint_file
    shutil.copy(checkpoint, tmp_path / "kept")
    train(tmp_path / "parts", stop_after=11)
    shutil.copy(tmp_path / "kept", checkpoint)
    found = train(tmp_path / "parts")
    assert expected is not None
    assert found is not None
    assert [name for name in expected if not same(expected[name], found[name])] == []
    assert len(expected["grids"]) > 2
    assert events(tmp_path / "parts") == events(tmp_path / "whole")


@pytest.mark.parametrize(
    "options",
    [
        ["data.resident=false", "data.num_workers=1"],
        pytest.param(
            ["model/objective=annealed", "model.objective.steps=12", "model/prior=vamp", "model.prior.components=3"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["data.binarize=dynamic", "model/likelihood=gaussian", "model/objective=mmd"], marks=pytest.mark.slow
        ),
        ["model/likelihood=optimal_sigma", "model/objective=geco", "engine.steps_per_call=2"],
        ["schedule=warmup_cosine", "engine.steps_per_call=4", "trainer.precision=bf16-mixed"],
        pytest.param(["engine.steps_per_call=4"], marks=pytest.mark.slow),
        pytest.param(["data.validation_size=20", "trainer.precision=bf16-mixed"], marks=pytest.mark.slow),
        pytest.param(
            ["schedule=one_cycle", "trainer.accumulate_grad_batches=3", "trainer.max_epochs=4"], marks=pytest.mark.slow
        ),
        pytest.param(
            ["schedule=step", "model.lr_scheduler.scheduler.step_size=1", "engine.steps_per_call=4"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["schedule=plateau", *LOWERS, "data.validation_size=4", "trainer.max_epochs=4"], marks=pytest.mark.slow
        ),
        pytest.param(["model/posterior=iaf", "model/prior=flow"], marks=pytest.mark.slow),
        pytest.param(["model/posterior=nsf", "model/prior=gaussian_mixture"], marks=pytest.mark.slow),
        pytest.param(["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"], marks=pytest.mark.slow),
        pytest.param(["callbacks=[default,ema]", "trainer.gradient_clip_val=0.5"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_with_anything(tmp_path: Path, options: list[str]) -> None:
    expected = train(tmp_path / "whole", *options)
    for stop in (3, 11):
        assert train(tmp_path / "parts", *options, stop_after=stop) is None
    found = train(tmp_path / "parts", *options)
    assert expected is not None
    assert found is not None
    assert [name for name in expected if not same(expected[name], found[name])] == []


@pytest.mark.parametrize(
    "options",
    [
        ["data.resident=false", "data.num_workers=1", "trainer.max_steps=100"],
        ["trainer.limit_train_batches=3", "trainer.accumulate_grad_batches=2"],
        pytest.param(["trainer.limit_train_batches=4", "engine.steps_per_call=2"], marks=pytest.mark.slow),
        pytest.param(["trainer.overfit_batches=2"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_a_run_is_extended_as_if_it_had_been_longer_from_the_start(tmp_path: Path, options: list[str]) -> None:
    """The last three have epochs that are not whole."""
    expected = train(tmp_path / "whole", *options)
    train(tmp_path / "parts", *options, "trainer.max_epochs=1")
    found = train(tmp_path / "parts", *options)
    assert expected is not None
    assert found is not None
    assert [name for name in expected if not same(expected[name], found[name])] == []


def test_a_run_that_its_number_of_steps_ended_within_an_epoch_is_extended_by_whole_ones(tmp_path: Path) -> None:
    options = ["trainer.max_epochs=3", "data.validation_size=4"]
    train(tmp_path / "some", *options, "trainer.max_steps=11")
    shutil.copytree(tmp_path / "some", tmp_path / "unlimited")
    found = train(tmp_path / "some", *options, "trainer.max_steps=100")
    expected = train(tmp_path / "unlimited", *options, "trainer.max_steps=-1")
    assert expected is not None
    assert found is not None
    assert expected["steps"] == 11 + 8
    assert [name for name in expected if not same(expected[name], found[name])] == []


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_extended_more_than_once_and_stopped_in_between(tmp_path: Path, workers: int) -> None:
    options = ["data.resident=false", f"data.num_workers={workers}", "trainer.max_epochs=5"]
    expected = train(tmp_path / "whole", *options)
    for epochs in (2, 3):
        assert train(tmp_path / "parts", *options, f"trainer.max_epochs={epochs}") is not None
    assert train(tmp_path / "parts", *options, stop_after=29) is None
    found = train(tmp_path / "parts", *options)
    assert expected is not None
    assert found is not None
    assert [name for name in expected if not same(expected[name], found[name])] == []


EARLY = ["callbacks=[default,early_stopping]", "callbacks.stopping.mode=min", "callbacks.stopping.patience=1"]
EMA = ["callbacks=[default,ema]"]
BEST = ["callbacks=[default,best]", "callbacks.best.mode=min", "trainer.val_check_interval=4"]


@pytest.mark.parametrize(
    ("options", "stop"),
    [
        (EARLY, 8),
        (EMA, 16),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [(EARLY, 16), (EMA, 8), (BEST, 4), (BEST, 8), (BEST, 16)]
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_nothing_that_follows_a_step_is_left_out(tmp_path: Path, options: list[str], stop: int) -> None:
    """Stopped in the step before a validation, in the last one of an epoch, and in that of the training."""
    options = [*options, "data.validation_size=4", f"trainer.max_epochs={4 if 'early' in options[0] else 2}"]
    expected = train(tmp_path / "whole", *options)
    assert train(tmp_path / "parts", *options, stop_after=stop) is None
    found = train(tmp_path / "parts", *options)
    assert expected is not None
    assert found is not None
    assert expected["steps"] == 16
    assert [name for name in expected if not same(expected[name], found[name])] == []


def test_a_checkpoint_is_replaced_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train(tmp_path, stop_after=3)
    file = Run(tmp_path).checkpoint_file
    before = file.read_bytes()

    def fails(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(OSError, match="No space left on device.*last.ckpt"):
        train(tmp_path)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == ["last.ckpt"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_saves_everything_and_says_how_to_resume(tmp_path: Path, number: int, code: int) -> None:
    """One signal ends the sweep, not only its job."""
    options = [*TINY, "--multirun", "trainer.max_epochs=300", "logger=none", "callbacks.grids.every_n_batches=50"]
    options += ["model.latent_dim=2,3", "hydra.sweep.dir=sweep"]
    process = start_command("vae_lightning.cli", *options, cwd=tmp_path, said=tmp_path)
    until = time.monotonic() + 60
    while "epoch 2/300" not in (tmp_path / "stdout").read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait(60) == code
    errors = (tmp_path / "stderr").read_text()
    assert "interrupted latent_dim-2: its state has been saved" in errors
    assert "hydra.sweep.dir=sweep resume=true" in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "sweep" / "latent_dim-3").exists()
    assert steps_taken_at(Run(tmp_path / "sweep" / "latent_dim-2").checkpoint_file) >= 3


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    """In the middle of a step, and without a checkpoint."""

    class Impatient(Callback):
        reached = False

        def on_train_batch_start(self, *_: object) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            self.reached = True

    config = compose_config(*TINY, *SETTINGS)
    config.run_dir = str(tmp_path)
    model, data, trainer, _ = build(config)
    trainer.callbacks.insert(0, impatient := Impatient())
    with interruption(trainer), pytest.raises(Interrupted) as stop:
        trainer.fit(model, datamodule=data)
    assert stop.value.code == 130
    assert not impatient.reached
    assert not Run(tmp_path).checkpoint_file.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_trained_model_is_tested_stops_at_once(tmp_path: Path, number: int) -> None:
    class Killer(Callback):
        def on_test_batch_start(self, *_: object) -> None:
            os.kill(os.getpid(), number)

    config = compose_config(*TINY, *SETTINGS)
    config.run_dir = str(tmp_path)
    model, data, trainer, _ = build(config)
    trainer.callbacks.append(Killer())
    with interruption(trainer):
        trainer.fit(model, datamodule=data)
    with interruption(trainer), pytest.raises(Interrupted) as stop:
        trainer.test(model, datamodule=data, verbose=False)
    assert stop.value.code == 128 + number
    assert steps_taken_at(Run(tmp_path).checkpoint_file) == 16


def test_a_sweep_goes_on(tmp_path: Path) -> None:
    """A finished run is left alone, one that has just begun is run, and the comparison is made."""
    sweep = ["--multirun", *UNMEASURED, "model.latent_dim=2,3", "hydra.sweep.dir=sweep"]
    whole = run_command("vae_lightning.cli", *TINY, *sweep, cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    again = run_command("vae_lightning.cli", *TINY, *sweep, cwd=tmp_path)
    assert again.returncode == 2
    assert "hydra.sweep.dir=sweep: already holds runs; resume=true resumes them" in again.stderr
    runs = [Run(tmp_path / "sweep" / f"latent_dim-{dimension}") for dimension in (2, 3)]
    expected = json.loads(runs[1].metrics_file.read_text())
    runs[1].metrics_file.unlink()
    untouched = runs[0].metrics_file.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "sweep" / "report")
    resumed = run_command("vae_lightning.cli", *TINY, *sweep, "resume=true", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert "finished   sweep/latent_dim-2 already" in resumed.stdout
    assert "resuming   after step 6" in resumed.stdout
    assert "2 of 2 runs finished" in resumed.stdout
    assert runs[0].metrics_file.stat().st_mtime_ns == untouched
    found = json.loads(runs[1].metrics_file.read_text())
    assert {name: found[name] for name in found if name.startswith("test/")} == {
        name: expected[name] for name in expected if name.startswith("test/")
    }
    assert found["epochs"] == expected["epochs"]
    # Another configuration is another run, and another sweep: its missing run is not trained, nor is it recorded.
    more = ["resume=true", "model.latent_dim=2,3,4", "model.optimizer.lr=0.002"]
    recorded = (tmp_path / "sweep" / "multirun.yaml").read_bytes()
    other = run_command("vae_lightning.cli", *TINY, *sweep, *more, cwd=tmp_path)
    assert other.returncode == 2
    assert not (tmp_path / "sweep" / "latent_dim-4").exists()
    assert (tmp_path / "sweep" / "multirun.yaml").read_bytes() == recorded
    assert "model.optimizer.lr=0.002: sweep/latent_dim-2 was started with model.optimizer.lr=0.001" in other.stderr
    # A damaged checkpoint is not trusted.
    runs[1].metrics_file.unlink()
    runs[1].checkpoint_file.write_bytes(b"PK")
    damaged = run_command("vae_lightning.cli", *TINY, *sweep, "resume=true", cwd=tmp_path)
    assert damaged.returncode == 2
    assert "last.ckpt: cannot be read" in damaged.stderr


def test_a_run_goes_on_with_the_same_images_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With one more, others would be held out for testing, most of which the model was trained on."""
    file, run = tmp_path / "a.npy", Run(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 256, (31, 6, 6), np.uint8)
    options = ["data=arrays", f"data.source.path={file}", "model=mlp", *UNMEASURED, "logger=none", "resume=true"]
    options += ["trainer.accelerator=cpu", "trainer.max_epochs"]
    np.save(file, images[:30])
    train_run(compose_config(*options[:-1], f"{options[-1]}=1"), run.folder, progress=False)
    files = {path: path.read_bytes() for path in run.folder.rglob("*.json")}
    load_run(run.folder).test_images(1)
    assert not caplog.records
    np.save(file, images)
    with pytest.raises(UsageError, match=r"^data: the training and test images of a are not .* or train in another"):
        train_run(compose_config(*options[:-1], f"{options[-1]}=2"), run.folder, progress=False)
    assert files == {path: path.read_bytes() for path in run.folder.rglob("*.json")}
    load_run(run.folder).test_images(1)
    assert caplog.messages[-1].startswith("data       the training and test images of a are not those that run was")
    np.save(file, images[:30])
    assert (
        train_run(compose_config(*options[:-1], f"{options[-1]}=2"), run.folder, progress=False).metrics["epochs"] == 2
    )
    assert Run(run.folder).digests == run.digests


@pytest.mark.slow
def test_kill_campaign(tmp_path: Path) -> None:
    """SIGKILL at random moments, until the sweep is through: the same weights and metrics as undisturbed.

    VAE_KILLS sets the number of moments.
    """
    options = ["--multirun", "model.latent_dim=2,3", "callbacks.checkpoints.every_n_batches=2", "logger=none"]
    options += ["data.source.train_size=600", "callbacks.measurements.tsne=false"]
    started = time.monotonic()
    whole = run_command("vae_lightning.cli", *TINY, *options, "hydra.sweep.dir=whole", cwd=tmp_path)
    lasted = time.monotonic() - started
    assert whole.returncode == 0, whole.stderr
    moments = random.Random(0)
    killed = 0
    for _ in range(int(os.environ.get("VAE_KILLS", "4"))):
        arguments = [
            sys.executable,
            "-m",
            "vae_lightning.cli",
            *TINY,
            *options,
            "hydra.sweep.dir=parts",
            "resume=true",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            arguments, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(0.3, lasted))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
    assert killed > 0
    done = run_command("vae_lightning.cli", *TINY, *options, "hydra.sweep.dir=parts", "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished" in done.stdout
    for run in ("latent_dim-2", "latent_dim-3"):
        weights = [
            torch.load(Run(tmp_path / sweep / run).checkpoint_file, weights_only=True)["state_dict"]
            for sweep in ("whole", "parts")
        ]
        assert same(*weights)
        metrics = [json.loads((tmp_path / sweep / run / "metrics.json").read_text()) for sweep in ("whole", "parts")]
        measured = [{name: value for name, value in found.items() if name.startswith("test/")} for found in metrics]
        assert measured[0] == measured[1]
