"""What reaches each kind of logger, also after a resume, and what becomes of errors in one."""

import csv
import json
import logging
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from pytorch_lightning.loggers import Logger
from shared import TINY, UNMEASURED, compose_config, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lightning import train
from vae_lightning.errors import UsageError
from vae_lightning.loggers.recording import add_picture
from vae_lightning.runs import Run
from vae_lightning.runs.loading import LoadedRun

PLAIN = [*TINY, *UNMEASURED, "~callbacks.losses"]


def run(folder: Path, *options: str) -> LoadedRun:
    return train(compose_config(*PLAIN, *options), folder, progress=False)


def rows(folder: Path, *but: str) -> list[dict[str, str]]:
    """The rows of a run's CSV file without empty cells and some columns."""
    with (folder / "csv" / "metrics.csv").open() as file:
        found = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if value and key not in but} for row in found]


def test_several_loggers_at_once(tmp_path: Path) -> None:
    found = run(tmp_path, "logger=[tensorboard,csv]", "data.validation_size=16")
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    table = rows(tmp_path)
    assert {int(row["step"]): float(row["train/loss"]) for row in table if "train/loss" in row} == pytest.approx(losses)
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert [float(row["val/elbo"]) for row in table if "val/elbo" in row][-1] == found.metrics["val/elbo"]
    assert {name: float(table[-1][name]) for name in found.metrics} == found.metrics
    options = yaml.safe_load((tmp_path / "csv" / "hparams.yaml").read_text())
    assert (options["model"]["latent_dim"], options["choices"]["model"]) == (2, "conv")


def test_a_csv_file_is_continued(tmp_path: Path) -> None:
    """Also after a crash: what follows the checkpoint comes again, and the last line may not be whole."""
    options = ["logger=csv", "data.validation_size=16"]
    run(tmp_path / "parts", *options)
    file = tmp_path / "parts" / "csv" / "metrics.csv"
    columns = file.read_text().splitlines()[0].split(",")
    later = {"step": "7", "train/loss": "1.0", "epoch": "2"}
    with file.open("a") as opened:
        opened.write(",".join(later.get(name, "") for name in columns) + "\n2,,")
    run(tmp_path / "parts", *options, "resume=true", "trainer.max_epochs=3")
    run(tmp_path / "whole", *options, "trainer.max_epochs=3")
    timing = ("seconds_training", "images_per_second")
    assert rows(tmp_path / "parts", *timing) == rows(tmp_path / "whole", *timing)


@pytest.mark.parametrize("package", ["mlflow", "wandb"])
def test_a_package_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """It is said before data are looked at, which are not there."""
    monkeypatch.setattr("vae_lightning.loggers.recording.find_spec", lambda name: None)
    data = ["data=folder", f"data.source.path={tmp_path}/nowhere"]
    with pytest.raises(UsageError) as caught:
        train(compose_config(*data, f"logger=[csv,{package}]"), tmp_path / "run", progress=False)
    assert str(caught.value) == f'logger.{package}: {package} is not installed; pip install "vae-lightning[{package}]"'
    assert not (tmp_path / "run" / "config.yaml").exists()


class Broken(Logger):
    """A logger with a service that is down from some call on."""

    name = version = "broken"

    def __init__(self, fails: str) -> None:
        super().__init__()
        self.fails = fails

    def _called(self, name: str) -> None:
        if name == self.fails:
            raise ConnectionError(f"no connection\nat {name}")

    def log_metrics(self, metrics: dict, step: int | None = None) -> None:
        self._called("result" if "epochs" in metrics else "test" if "test/elbo" in metrics else "training")

    def log_hyperparams(self, params: dict) -> None:
        self._called("configuration")

    def finalize(self, status: str) -> None:
        self._called("end")


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        ("configuration", "the configuration"),
        ("training", "metrics"),
        ("test", "metrics"),
        ("end", "the end of a stage"),
        ("result", "the result"),
    ],
)
def test_nothing_that_a_logger_does_costs_a_result(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, fails: str, said: str
) -> None:
    caplog.set_level(logging.INFO)
    options = ["logger=csv", f"+logger.down={{_target_: test_loggers.Broken, fails: {fails}}}"]
    found = run(tmp_path, *options)
    assert caplog.text.count("no connection") == 1 + (fails == "end")  # the result is tried again
    assert f"Broken could not record {said}: no connection\n" in caplog.text
    assert Run(tmp_path).metrics == found.metrics
    assert float(rows(tmp_path)[-1]["test/elbo"]) == found.metrics["test/elbo"]
    # A result that is there can be resumed.
    assert run(tmp_path, *options, "resume=true").metrics == found.metrics


class Own(Logger):
    """A logger of a kind of its own."""

    name = version = "own"
    pictures: list[tuple[str, int, tuple[str, ...]]] = []
    ended: list[str] = []

    def log_metrics(self, metrics: dict, step: int | None = None) -> None: ...

    def log_hyperparams(self, params: dict) -> None: ...

    def finalize(self, status: str) -> None:
        self.ended.append(status)


@add_picture.register
def _(logger: Own, name: str, file: Path, step: int) -> None:
    with Image.open(file) as picture:
        logger.pictures.append((name, step, picture.getbands()))


def test_pictures_reach_a_logger_of_ones_own(tmp_path: Path) -> None:
    Own.pictures.clear()
    options = [option for option in TINY if "explorer" not in option and "measurements" not in option]
    options += ["~callbacks.explorer", "~callbacks.views", "~callbacks.measurements", "logger=none"]
    train(compose_config(*options, "+logger.own._target_=test_loggers.Own"), tmp_path, progress=False)
    assert [step for name, step, _ in Own.pictures if name == "samples during training"] == [1, 2, 3, 4, 5, 6]
    names = {name.replace(" ", "_") for name, _, _ in Own.pictures}
    assert names - {"samples_during_training"} == {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert all(len(bands) in (1, 3) for _, _, bands in Own.pictures)


def test_a_failed_run_is_recorded_as_one(tmp_path: Path) -> None:
    Own.ended.clear()
    with pytest.raises(Exception, match="loss is nan"):
        run(tmp_path, "logger=none", "+logger.own._target_=test_loggers.Own", "model.optimizer.lr=1e30")
    assert Own.ended[-1] == "failed"


def test_a_trial_leaves_nothing(tmp_path: Path) -> None:
    run_options = ["logger=[tensorboard,csv]", "trainer.fast_dev_run=true"]
    from vae_lightning.training import execute

    execute(compose_config(*PLAIN, *run_options), Run(tmp_path / "run"), progress=False)
    assert not {"csv", "tensorboard"} & {path.name for path in (tmp_path / "run").iterdir()}


@pytest.mark.slow
def test_the_first_of_several_processes_records_alone(tmp_path: Path) -> None:
    two = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    done = run_command("vae_lightning.cli", *PLAIN, *two, "logger=csv", "hydra.run.dir=run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [int(row["step"]) for row in rows(tmp_path / "run") if "train/loss" in row]
    assert steps == [1, 2, 3, 4, 5, 6]
    metrics = Run(tmp_path / "run").metrics
    assert [float(row["test/elbo"]) for row in rows(tmp_path / "run") if "test/elbo" in row] == 2 * [
        metrics["test/elbo"]
    ]


DRAWN = ["~callbacks.explorer", "~callbacks.measurements", "callbacks.grids.every_n_batches=3"]


def command(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return run_command("vae_lightning.cli", *TINY, *DRAWN, *options, cwd=folder)


@pytest.mark.slow
def test_mlflow(tmp_path: Path) -> None:
    client = pytest.importorskip("mlflow.tracking").MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    entities = pytest.importorskip("mlflow.entities")

    def steps(key: str) -> list[int]:
        return sorted(metric.step for metric in client.get_metric_history(record.info.run_id, key))

    options = ["logger=mlflow", "study=numbers", "hydra.run.dir=mine"]
    done = command(tmp_path, *options)
    assert (done.returncode, done.stderr) == (0, "")
    experiment = client.get_experiment_by_name("numbers")
    (record,) = client.search_runs([experiment.experiment_id])
    metrics = Run(tmp_path / "mine").metrics
    assert (record.info.run_name, record.info.status) == ("mine", "FINISHED")
    assert record.data.params["model.encoder.width"] == "4"
    assert record.data.params["choices.model/objective"] == "elbo"
    assert {name: record.data.metrics[name] for name in metrics} == metrics
    assert steps("train/loss") == [1, 2, 3, 4, 5, 6]
    pictures = {artifact.path.partition("+")[0] for artifact in client.list_artifacts(record.info.run_id, "images")}
    assert pictures > {"images/samples during training", "images/reconstructions", "images/lattice"}

    # As if it had been killed two steps after its checkpoint.
    later = [entities.Metric("train/loss", 500.0 + step, 0, step) for step in (7, 8)]
    client.log_batch(record.info.run_id, metrics=later)
    done = command(tmp_path, *options, "resume=true", "trainer.max_epochs=3")
    assert (done.returncode, done.stderr) == (0, "")
    (record,) = client.search_runs([experiment.experiment_id])
    assert steps("train/loss") == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert steps("train/rate") == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert (record.data.metrics["epochs"], record.info.status) == (3, "FINISHED")

    failed = command(tmp_path, "logger=mlflow", "study=numbers", "hydra.run.dir=other", "model.optimizer.lr=1e30")
    assert failed.returncode == 1
    status = {found.info.run_name: found.info.status for found in client.search_runs([experiment.experiment_id])}
    assert status == {"mine": "FINISHED", "other": "FAILED"}

    # Under another name, it is still the same run.
    (tmp_path / "mine").rename(tmp_path / "renamed")
    options[-1] = "hydra.run.dir=renamed"
    done = command(tmp_path, *options, "resume=true", "trainer.max_epochs=4")
    assert (done.returncode, done.stderr) == (0, "")
    assert steps("train/loss")[-1] == 12

    # Without its database, the run has a new record.
    shutil.move(tmp_path / "mlflow.db", tmp_path / "old.db")
    assert command(tmp_path, *options, "resume=true", "trainer.max_epochs=5").returncode == 0


def records(file: Path) -> Iterator[Any]:
    """The records of one of wandb's offline files: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, block, place, part = file.read_bytes(), 32768, 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        if (left := block - place % block) < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        part += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            yield Record.FromString(part)
            part = b""


@pytest.mark.slow
def test_wandb(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    options = ["logger=wandb", "study=numbers", "model.latent_dim=2,3", "-m", "hydra.sweep.dir=sweep"]
    done = command(tmp_path, *options)
    assert (done.returncode, done.stderr) == (0, "")
    for latent_dim in (2, 3):  # trained in one process, each with a record of its own
        run_folder = tmp_path / "sweep" / f"latent_dim-{latent_dim}"
        (file,) = run_folder.glob("wandb/offline-run-*/*.wandb")
        found = list(records(file))
        (about,) = (record.run for record in found if record.HasField("run"))
        assert (about.project, about.display_name) == ("numbers", run_folder.name)
        assert json.loads(Run(run_folder).loggers_file.read_text()) == {"wandb": about.run_id}
        config = {item.key: json.loads(item.value_json) for record in found for item in record.config.update}
        assert config["model"]["latent_dim"] == latent_dim
        summary = {
            item.key or ".".join(item.nested_key): json.loads(item.value_json)
            for record in found
            for item in record.summary.update
        }
        metrics = Run(run_folder).metrics
        assert {name: summary[name] for name in metrics} == pytest.approx(metrics)
        history = [
            {item.key or item.nested_key[0]: item.value_json for item in record.history.item} for record in found
        ]
        assert [int(row["trainer/global_step"]) for row in history if "train/loss" in row] == [1, 2, 3, 4, 5, 6]
        assert [record.exit.exit_code for record in found if record.HasField("exit")] == [0]
        pictures = {path.name.rpartition("_")[0].rpartition("_")[0] for path in file.parent.rglob("media/images/*.png")}
        assert {"samples during training", "samples over training", "reconstructions", "latent means"} <= pictures

    done = command(tmp_path, *options, "resume=true", "trainer.max_epochs=3")
    assert (done.returncode, done.stderr) == (0, "")
    for latent_dim in (2, 3):
        files = sorted((tmp_path / "sweep" / f"latent_dim-{latent_dim}").glob("wandb/offline-run-*/*.wandb"))
        assert len(files) == 2
        assert files[0].name == files[1].name  # the same identity


def test_loggers_are_chosen_by_name(tmp_path: Path) -> None:
    assert list(compose_config("logger=[csv,tensorboard]").logger) == ["csv", "tensorboard"]
    assert list(compose_config().logger) == ["tensorboard"]
    assert not compose_config("logger=none").logger
    for override, said in [
        ("logger=[csv,mlfow]", "logger=mlfow: no such choice. Did you mean logger=mlflow?\nlogger can be csv, mlflow,"),
        ("logger=null", "logger=null: must be a choice, or a list such as [tensorboard,csv]"),
    ]:
        with pytest.raises(UsageError) as caught:
            compose_config(override)
        assert str(caught.value).startswith(said)
    (tmp_path / "logger").mkdir()
    (tmp_path / "logger" / "own.yaml").write_text("own: {_target_: test_loggers.Own}")
    assert list(compose_config("logger=[csv,own]", config_dir=tmp_path).logger) == ["csv", "own"]
    with pytest.raises(UsageError, match="Did you mean logger=own"):
        compose_config("logger=[csv,ow]", config_dir=tmp_path)
