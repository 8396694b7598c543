"""The commands as a user runs them: a whole sweep, and what happens when something is wrong."""

import csv
import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from shared import TINY, UNMEASURED, Swept, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_sweep_leaves_everything_where_it_should_be(swept: Swept) -> None:
    folder, _ = swept
    names = ["latent_dim-2_seed-0", "latent_dim-2_seed-1", "latent_dim-3_seed-0", "latent_dim-3_seed-1"]
    assert sorted(path.name for path in folder.iterdir()) == [*names, "multirun.yaml", "report"]
    for name in names:
        run = folder / name
        contents = ".hydra checkpoints config.yaml environment.json figures metrics.json tensorboard train.log"
        assert sorted(path.name for path in run.iterdir()) == contents.split()
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert f"latent_dim-{config['model']['latent_dim']}_seed-{config['seed']}" == name
        assert config["model"]["encoder"]["latent_dim"] == config["model"]["latent_dim"]
        assert "${" not in (run / "config.yaml").read_text()
        environment = json.loads((run / "environment.json").read_text())
        assert environment["torch"] == torch.__version__.split("+")[0]
        assert environment["seed"] == config["seed"]
        assert "epoch 6/6  batch   3/3   loss" in (run / "train.log").read_text()
        assert len(list((run / "figures" / "grids").glob("*.png"))) == 6
        assert (run / "figures" / "samples_over_training.png").is_file()
        assert (run / "figures" / "bound.png").is_file()
        with np.load(run / "figures" / "figures.npz") as arrays:
            assert arrays["bound_samples"].tolist() == [1, 2, 3]
            bound = json.loads((run / "metrics.json").read_text())["test/iw_bound"]
            assert arrays["bound"][-1] == pytest.approx(bound)


def test_metrics_are_flat_and_complete(swept: Swept) -> None:
    metrics = json.loads((swept.folder / "latent_dim-2_seed-0" / "metrics.json").read_text())
    assert all(isinstance(value, int | float) for value in metrics.values())
    assert {"test/elbo", "test/distortion", "test/rate", "test/loss", "seconds_training", "images_per_second"} < set(
        metrics
    )
    assert (metrics["epochs"], metrics["steps"], metrics["latent_dim"], metrics["seed"]) == (6, 18, 2, 0)
    assert metrics["images_per_second"] == pytest.approx(6 * 96 / metrics["seconds_training"], rel=0.01)


def test_checkpoints_hold_nothing_but_data(swept: Swept) -> None:
    checkpoint = torch.load(swept.folder / "latent_dim-3_seed-0" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 18
    assert checkpoint["state_dict"]["encoder.head.mean.weight"].shape[0] == 3
    assert [path.name for path in (swept.folder / "latent_dim-3_seed-0" / "checkpoints").iterdir()] == ["last.ckpt"]


def test_the_comparison(swept: Swept) -> None:
    folder, printed = swept
    with (folder / "report" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model.latent_dim"], row["seed"]) for row in rows] == [("2", "0"), ("2", "1"), ("3", "0"), ("3", "1")]
    for row in rows:
        metrics = json.loads((folder / row["run"] / "metrics.json").read_text())
        assert float(row["test/elbo"]) == metrics["test/elbo"]
        assert f"{metrics['test/elbo']:.2f}" in printed
    values = [float(row["test/rate"]) for row in rows[:2]]
    assert f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}" in printed
    assert "4 of 4 runs finished" in printed
    assert f"tensorboard --logdir multirun/{folder.name}" in printed
    picture = Image.open(folder / "report" / "comparison.png")
    assert picture.width >= 1200
    assert np.asarray(picture).std() > 10


@pytest.mark.slow
def test_the_comparison_can_be_made_again_from_the_files(swept: Swept, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(swept.folder, copy)
    shutil.rmtree(copy / "report")
    shutil.rmtree(copy / "latent_dim-2_seed-0" / "tensorboard")
    shutil.rmtree(copy / "latent_dim-2_seed-1" / "figures")
    (copy / "latent_dim-3_seed-1" / "metrics.json").unlink()
    done = run_command("vae_lightning.report", "copy", cwd=tmp_path)
    assert done.returncode == 1
    assert "3 of 4 runs finished" in done.stdout
    assert "failed     latent_dim-3_seed-1: not finished" in done.stdout
    assert (copy / "report" / "comparison.png").is_file()
    nothing = run_command("vae_lightning.report", "nowhere", cwd=tmp_path)
    assert nothing.returncode == 2
    assert "nowhere: no such folder" in nothing.stderr
    single = run_command("vae_lightning.report", "copy/latent_dim-3_seed-0", cwd=tmp_path)
    assert "this is a run; name the folder of its sweep" in single.stderr


def test_tensorboard_has_curves_pictures_and_hyperparameters(swept: Swept) -> None:
    events = EventAccumulator(str(swept.folder / "latent_dim-2_seed-0" / "tensorboard"), size_guidance={"images": 0})
    events.Reload()
    tags = events.Tags()
    assert {"train/loss", "train/distortion", "train/rate", "test/elbo"} <= set(tags["scalars"])
    assert {"samples during training", "latent means", "lattice", "reconstructions", "samples"} <= set(tags["images"])
    assert {event.step for event in events.Scalars("test/elbo")} == {18}  # at 0, what came before would be dropped
    assert [event.step for event in events.Images("samples during training")] == [3, 6, 9, 12, 15, 18]
    start = HParamsPluginData.FromString(events.PluginTagToContent("hparams")["_hparams_/session_start_info"])
    hparams = start.session_start_info.hparams
    assert (hparams["latent_dim"].number_value, hparams["seed"].number_value) == (2, 0)
    assert set(hparams) == {"latent_dim", "seed"}


@pytest.mark.slow
def test_the_same_seed_gives_bitwise_the_same_run(swept: Swept, vae_train: Command, tmp_path: Path) -> None:
    """A run on its own, against the second job of a sweep's process."""
    same = ["trainer.max_epochs=6", "model.optimizer.lr=0.01", "callbacks.grids.every_n_batches=3"]
    done = vae_train(*TINY, *same, "model.latent_dim=2", "seed=1", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    runs = tmp_path / "run", swept.folder / "latent_dim-2_seed-1"
    mine, theirs = (json.loads((run / "metrics.json").read_text()) for run in runs)
    for timing in ("seconds_training", "images_per_second"):
        assert mine.pop(timing) != theirs.pop(timing)
    assert mine == theirs
    states = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for run in runs]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    other = json.loads((swept.folder / "latent_dim-2_seed-0" / "metrics.json").read_text())
    assert other["test/elbo"] != mine["test/elbo"]
    asked = (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text()
    again = vae_train(*TINY, "model.latent_dim=4", "hydra.run.dir=run")
    assert (again.returncode, again.stderr) == (
        2,
        "hydra.run.dir=run: already holds a run; resume=true resumes it\n",
    )
    assert (tmp_path / "run" / ".hydra" / "overrides.yaml").read_text() == asked
    assert not (tmp_path / "run" / "error.txt").exists()


@pytest.mark.slow
def test_a_failed_job_does_not_stop_the_others(vae_train: Command, tmp_path: Path) -> None:
    """The first job fails while it runs, not when its configuration is checked."""
    done = vae_train(
        "--multirun",
        *TINY,
        *UNMEASURED,
        "data.validation_size=200,0",
        "+trainer.limit_test_batches=1",
        "hydra.sweep.dir=made",
    )
    assert done.returncode == 2
    assert "data.validation_size=200: must be less than the 96 images" in done.stderr
    assert "1 of 2 runs finished" in done.stdout
    assert "failed     validation_size-200: data.validation_size=200" in done.stdout
    assert (tmp_path / "made" / "validation_size-0" / "metrics.json").is_file()
    assert "Traceback" in (tmp_path / "made" / "validation_size-200" / "error.txt").read_text()
    assert "Traceback" not in done.stdout + done.stderr
    assert "validation_size-200" in (tmp_path / "made" / "report" / "metrics.csv").read_text()


@pytest.mark.slow
def test_sweeps_of_the_same_second_do_not_share_a_folder(tmp_path: Path) -> None:
    dry = ["vae_lightning.cli", "--multirun", *TINY, "model.latent_dim=0,-1"]
    for _ in range(2):
        run_command(*dry, "hydra.sweep.dir=multirun/the-same-second_${unique:}", cwd=tmp_path)
    assert len(list((tmp_path / "multirun").iterdir())) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.laten_dim=3"], "model.laten_dim: no such option. Did you mean model.latent_dim?\nmodel has decoder,"),
        (["model.objective=iwae"], "model.objective=iwae: is a group of options; choose with model/objective=iwae\n"),
        (["--multirun", "model.optimizer.weight_decay=0,1"], "add it with +model.optimizer.weight_decay=0"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_usage_errors(vae_train: Command, arguments: list[str], message: str) -> None:
    """As a user meets them; the others are tested in this process, in test_messages and test_bad_inputs."""
    done = vae_train(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert "Traceback" not in done.stdout + done.stderr


def test_tracebacks_for_those_who_ask(vae_train: Command) -> None:
    for mistake in ("model.laten_dim=3", "model.latent_dim=0"):
        done = vae_train(mistake, HYDRA_FULL_ERROR="1")
        assert done.returncode == 2
        assert "Traceback" in done.stderr


def test_help_teaches(vae_train: Command) -> None:
    done = vae_train("--help")
    assert done.returncode == 0
    assert "vae-train experiment=latent_sweep" in done.stdout
    for group, choice in [("data", "glyphs"), ("model", "mlp"), ("model/objective", "as_printed")]:
        assert any(line.startswith(f"{group}:") and choice in line for line in done.stdout.splitlines())


@pytest.mark.slow
def test_events_survive_a_crash(tmp_path: Path) -> None:
    """A run that is killed, so that nothing can be closed, has left what it logged up to seconds before."""
    command = [sys.executable, "-m", "vae_lightning.cli", *TINY, "trainer.max_epochs=100000", "hydra.run.dir=run"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        started = None
        for line in process.stdout:
            if line.startswith("epoch") and started is None:
                started = time.monotonic()
            if started is not None and time.monotonic() - started > 8:
                break
        process.kill()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    assert len(events.Scalars("train/loss")) > 10
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_training_that_diverges_has_failed(vae_train: Command, tmp_path: Path) -> None:
    done = vae_train(*TINY, "model.optimizer.lr=1e30", "hydra.run.dir=run")
    assert done.returncode == 1
    assert "step 2: loss is nan" in done.stderr
    assert "a lower model.optimizer.lr may help" in done.stderr
    assert not (tmp_path / "run" / "metrics.json").exists()


@pytest.mark.slow
def test_a_sweep_without_callbacks_and_loggers_still_has_a_table(vae_train: Command, tmp_path: Path) -> None:
    options = ["model.latent_dim=1", "callbacks=none", "logger=none", "data.validation_size=16"]
    small = [option for option in TINY if not option.startswith("callbacks")]
    done = vae_train(*small, *options, "seed=0,1", "--multirun", "hydra.sweep.dir=made")
    assert done.returncode == 0, done.stderr
    assert "validated  elbo" in done.stdout
    assert "val elbo" in done.stdout
    assert "mean ± standard deviation over seeds" in done.stdout
    assert sorted(path.name for path in (tmp_path / "made" / "report").iterdir()) == [
        "comparison.png", "index.html", "metrics.csv"
    ]  # fmt: skip
    contents = ".hydra config.yaml environment.json figures metrics.json train.log"
    assert sorted(path.name for path in (tmp_path / "made" / "seed-0").iterdir()) == contents.split()


@pytest.mark.slow
def test_a_failed_job_leaves_no_model_behind(tmp_path: Path) -> None:
    """What Hydra keeps of a failed job must not keep the job's model and data."""
    program = textwrap.dedent("""
        import gc, sys
        from vae_lightning import cli
        def count():
            gc.collect()
            return sum(type(o).__name__ in ("VAE", "ResidentLoader") for o in gc.get_objects())
        seen = []
        check = cli.check
        cli.check = lambda config: (seen.append(count()), check(config))
        try:
            cli.main()
        except SystemExit as done:
            print("left", seen, count(), "exit", done.code)
    """)
    options = [*TINY, "model.optimizer.lr=1e18", "seed=0,1,2", "--multirun", "hydra.sweep.dir=made"]
    (tmp_path / "counted.py").write_text(program)
    done = run_command("counted", *options, cwd=tmp_path)
    assert "left [0, 0, 0] 0 exit 1" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
def test_what_comes_to_nothing_leaves_no_folder(vae_train: Command, tmp_path: Path) -> None:
    """Neither a download that fails nor a wrong option; a folder that was there stays, with the reason in it."""
    unreachable = ["data=kmnist", "data.source.mirrors=[http://127.0.0.1:9/]", "trainer.accelerator=cpu"]
    done = vae_train(*unreachable, VAE_DATA_DIR=str(tmp_path / "data"))
    assert done.returncode == 1
    assert "http://127.0.0.1:9/" in done.stderr
    assert vae_train(*TINY, "callbacks.measurements.probe_images=-1", "hydra.run.dir=new/run").returncode == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    (tmp_path / "mine").mkdir()
    assert vae_train(*unreachable, "hydra.run.dir=mine", VAE_DATA_DIR=str(tmp_path / "data")).returncode == 1
    assert "http://127.0.0.1:9/" in (tmp_path / "mine" / "error.txt").read_text()
