"""What the machine does to a training: it ends in a clear line, with everything up to then kept."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from shared import TINY, UNMEASURED, Swept, run_command

from vae_lightning.config.messages import explain_failure
from vae_lightning.runs import Run
from vae_lightning.runs.resuming import steps_taken_at

LONG = [*TINY, "trainer.max_epochs=4", "callbacks.grids.every_n_batches=50", *UNMEASURED]


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    """A folder on a disk of its own, with 420 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=420k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk(small_disk: Path, tmp_path: Path) -> None:
    """The last good state remains, and once there is space the run resumes to the same result."""
    done = run_command("vae_lightning.cli", *LONG, f"hydra.run.dir={small_disk / 'run'}", cwd=tmp_path)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not list(small_disk.rglob("*.partial"))
    run = Run(small_disk / "run")
    assert not run.finished
    subprocess.run(["mount", "-o", "remount,size=20m", small_disk], check=True)
    for folder, more in [(small_disk / "run", ["resume=true"]), (tmp_path / "whole", [])]:
        done = run_command("vae_lightning.cli", *LONG, f"hydra.run.dir={folder}", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert Run(run.folder).metrics["test/elbo"] == Run(tmp_path / "whole").metrics["test/elbo"]


def test_nan_and_infinite_losses(tmp_path: Path) -> None:
    """The step and the term are named; the checkpoint is one from before."""
    options = ["model.optimizer.lr=1e18", "callbacks.checkpoints.every_n_batches=1", "hydra.run.dir=run"]
    done = run_command("vae_lightning.cli", *LONG, *options, cwd=tmp_path)
    assert done.returncode == 1
    first = done.stderr.splitlines()[0]
    assert first.startswith("step ")
    assert " is nan" in first or " is inf" in first
    assert "a lower model.optimizer.lr may help" in first
    run = Run(tmp_path / "run")
    if run.checkpoint_file.is_file():
        assert "The last good state is in run/checkpoints/last.ckpt" in done.stderr
        assert steps_taken_at(run.checkpoint_file) < int(first.split()[1].rstrip(":"))
        state = torch.load(run.checkpoint_file, weights_only=True)["state_dict"]
        assert all(weight.isfinite().all() for name, weight in state.items() if "running" not in name)


@pytest.mark.slow
def test_a_worker_that_dies(tmp_path: Path) -> None:
    options = ["trainer.max_epochs=500", "data.resident=false", "data.num_workers=1", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "vae_lightning.cli", *LONG, *options]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"vae_lightning" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    time.sleep(0.2)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "data.num_workers=0 loads the images in the main process" in errors
    assert "The last good state is in run/checkpoints/last.ckpt" in errors
    assert "Traceback" not in errors


def test_out_of_memory() -> None:
    with pytest.raises(RuntimeError) as error:
        torch.empty(10**15)
    for found in (error.value, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), MemoryError()):
        assert explain_failure(found, "run", 512).startswith(
            "out of memory with data.batch_size=512: try a smaller one"
        )


def test_artefacts_do_not_tell_where_a_user_works(swept: Swept) -> None:
    files = [path for path in swept.folder.rglob("*") if path.is_file()]
    assert len(files) > 20
    for secret in (str(swept.folder.parents[1]), str(Path(__file__).parents[1]), str(Path.home()) + "/", "hunter2"):
        assert [path for path in files if secret.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    """Runs with faults at random moments; the long form is `python tests/soak.py`."""
    done = subprocess.run(
        [sys.executable, Path(__file__).with_name("soak.py"), "6", "1"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 of 6 as an undisturbed run" in done.stdout
