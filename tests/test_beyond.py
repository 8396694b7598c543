"""Sweeps beyond this process: SLURM's and Ray's launchers, jobs that are queued again, and searches."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from shared import TINY, UNDRAWN, run_command

from vae_lightning.runs import best_first, run_name, sweep_runs, swept_keys

SWEEP = [*TINY, *UNDRAWN, "model.latent_dim=2,3", "-m", "hydra.sweep.dir=sweep"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sweep as the basic launcher runs it."""
    folder = tmp_path_factory.mktemp("basic")
    done = run_command("vae_lightning.cli", *SWEEP, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


def same(one: Path, other: Path) -> None:
    timing = ["seconds_training", "images_per_second"]
    tables = [pd.read_csv(sweep / "report" / "metrics.csv").drop(columns=timing) for sweep in (one, other)]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


@pytest.mark.parametrize(
    ("launcher", "package"),
    [("submitit_local", "submitit"), ("ray_cluster", "ray"), ("parallel", "joblib")],
)
@pytest.mark.slow
def test_other_launchers_give_the_same_comparison(expected: Path, tmp_path: Path, launcher: str, package: str) -> None:
    if importlib.util.find_spec(f"hydra_plugins.hydra_{package}_launcher") is None:
        pytest.skip(f"the launcher for {package} is not installed")
    # On every machine with the basic launcher's number of threads.
    done = run_command("vae_lightning.cli", *SWEEP, f"hydra/launcher={launcher}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "2 of 2 runs finished" in done.stdout
    same(expected, tmp_path / "sweep")


def test_the_preset_for_slurm_is_one(tmp_path: Path) -> None:
    done = run_command("vae_lightning.cli", "hydra/launcher=slurm", "--cfg", "hydra", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "submitit_launcher.SlurmLauncher" in done.stdout
    assert "max_num_timeout: 100" in done.stdout


def test_a_launcher_that_is_not_installed(tmp_path: Path) -> None:
    if importlib.util.find_spec("hydra_plugins.hydra_ray_launcher"):
        pytest.skip("the launcher for ray is installed")
    done = run_command("vae_lightning.cli", "-m", "hydra/launcher=ray_cluster", "seed=0,1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "hydra/launcher=ray: is not installed; pip install vae-lightning[ray]\n"


def find_task(folder: Path) -> int | None:
    """The process in which submitit runs a job that was submitted from a folder."""
    for entry in Path("/proc").iterdir():
        try:
            if b"submitit.core._submit" in (entry / "cmdline").read_bytes() and (entry / "cwd").readlink() == folder:
                return int(entry.name)
        except (OSError, ValueError):
            continue
    return None


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_a_job_that_is_cut_off_is_queued_again_and_goes_on(tmp_path: Path) -> None:
    options = [
        *TINY,
        "trainer.max_epochs=40",
        "callbacks.grids.every_n_batches=50",
        *UNDRAWN,
    ]
    options += ["logger=none", "model.latent_dim=2", "-m"]
    command = [sys.executable, "-m", "vae_lightning.cli", *options, "hydra/launcher=submitit_local"]
    process = subprocess.Popen(
        [*command, "hydra.sweep.dir=sweep"],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline, task = time.monotonic() + 60, None
    while time.monotonic() < deadline:
        logs = list(tmp_path.glob("sweep/*/train.log"))
        task = find_task(tmp_path)
        if task and logs and "epoch 3/" in logs[0].read_text():
            break
        time.sleep(0.05)
    assert task
    os.kill(task, signal.SIGUSR2)
    out, errors = process.communicate(timeout=100)
    assert process.returncode == 0, out + errors
    (run,) = sweep_runs(tmp_path / "sweep")
    assert re.search("resuming   after step [1-9]", (run.folder / "train.log").read_text())
    whole = run_command("vae_lightning.cli", *options, "hydra.sweep.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    (undisturbed,) = sweep_runs(tmp_path / "whole")
    one, other = (torch.load(r.checkpoint_file, weights_only=True)["state_dict"] for r in (run, undisturbed))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert run.metrics["test/elbo"] == undisturbed.metrics["test/elbo"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_jobs_side_by_side_stop_with_their_sweep(tmp_path: Path, number: int, code: int) -> None:
    options = ["trainer.max_epochs=500", "logger=none", "hydra/launcher=parallel"]
    process = subprocess.Popen(
        [sys.executable, "-m", "vae_lightning.cli", *SWEEP, *options],
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline:
        logs = [log.read_text() for log in tmp_path.glob("sweep/*/train.log")]
        if len(logs) == 2 and all("epoch 3/" in log for log in logs):
            break
        time.sleep(0.05)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "hydra.sweep.dir=sweep resume=true" in errors
    assert "Traceback" not in errors
    assert all(run.checkpoint_file.is_file() for run in sweep_runs(tmp_path / "sweep"))
    for _ in range(100):  # joblib's own helper processes take a moment
        ps = subprocess.run(["ps", "-o", "args=", "-g", str(process.pid)], capture_output=True, text=True)
        if not ps.stdout:
            break
        time.sleep(0.1)
    assert ps.stdout == ""


SEARCH = [*TINY, "experiment=search", "data.validation_size=16", "trainer.max_epochs=1", "hydra.sweep.dir=search"]
SEARCH += ["callbacks=none", "logger=none"]
SEARCH = [option for option in SEARCH if not option.startswith("callbacks.")]


def trials(folder: Path) -> list[tuple[str, dict[str, float], float | None]]:
    import optuna

    study = optuna.load_study(study_name="search", storage=f"sqlite:///{folder / 'search' / 'study.db'}")
    return [(trial.state.name, trial.params, trial.value) for trial in study.get_trials()]


@pytest.mark.slow
def test_a_search_goes_on(tmp_path: Path) -> None:
    """One that is killed in its second trial takes that up again, with the same values, and then finishes."""
    pytest.importorskip("optuna")
    program = (
        "import os, signal; from vae_lightning import cli\n"
        "real, calls = cli._execute, []\n"
        "def killed(config, run, swept):\n"
        "    calls.append(1)\n"
        "    return real(config, run, swept) if len(calls) < 2 else os.kill(os.getpid(), signal.SIGKILL)\n"
        "cli._execute = killed\n"
        "cli.main()\n"
    )
    (tmp_path / "killed.py").write_text(program)
    killed = run_command("killed", *SEARCH, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    states = trials(tmp_path)
    assert [state for state, *_ in states] == ["COMPLETE", "RUNNING"]
    done = run_command("vae_lightning.cli", *SEARCH, "hydra.sweeper.n_trials=3", "resume=true", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "3 of 3 runs finished" in done.stdout
    assert "The best first, by the elbo of validation images." in done.stdout
    after = trials(tmp_path)
    assert [state for state, *_ in after] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert after[2][1] == states[1][1]
    runs = best_first(sweep_runs(tmp_path / "search"))
    assert [run.metrics["val/elbo"] for run in runs] == sorted([v for *_, v in after if v is not None], reverse=True)
    assert swept_keys(tmp_path / "search") == ["model.latent_dim", "model.optimizer.lr", "model.objective.beta"]
    table = pd.read_csv(tmp_path / "search" / "report" / "metrics.csv")
    assert table["val/elbo"].is_monotonic_decreasing
    assert table["model.optimizer.lr"].tolist() == [run.config["model"]["optimizer"]["lr"] for run in runs]
    complete = run_command("vae_lightning.cli", *SEARCH, "hydra.sweeper.n_trials=3", "resume=true", cwd=tmp_path)
    assert complete.returncode == 0, complete.stderr
    assert "3 of 3 runs finished" in complete.stdout
    assert trials(tmp_path) == after
    again = run_command("vae_lightning.cli", *SEARCH, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert again.returncode == 2
    assert "already holds runs" in again.stderr


def test_names_of_runs_with_long_decimals() -> None:
    one, other = (run_name("nowhere", [f"model.optimizer.lr=0.00368356162276{digit}"]) for digit in "12")
    assert one.startswith("lr-0.003684-")
    assert one != other


@pytest.mark.slow
def test_a_trial_that_fails_does_not_end_the_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    space = "hydra.sweeper.params={model.optimizer.lr: 'choice(1e30,0.001)'}"
    options = [*SEARCH, "hydra.sweeper.n_trials=4", space, "hydra.sweeper.sampler.seed=2"]
    done = run_command("vae_lightning.cli", *options, cwd=tmp_path)
    assert done.returncode == 1
    assert "step 2:" in done.stderr or "step 3:" in done.stderr
    assert {state for state, *_ in trials(tmp_path)} == {"COMPLETE", "FAIL"}
    assert {run.option("model.optimizer.lr") for run in sweep_runs(tmp_path / "search") if run.finished} == {0.001}
