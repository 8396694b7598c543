"""One training in several processes is the training in one, but for the order in which numbers are added."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.distributed as dist
from hydra.utils import instantiate
from shared import TINY, UNDRAWN, run_command
from torch import nn
from torch.multiprocessing import start_processes

from vae_lightning import compose
from vae_lightning.data.batch import Batch
from vae_lightning.data.loaders import Batches, EpochShuffle
from vae_lightning.engine.batch_norm import SharedBatchNorm, SharedBatchNorms
from vae_lightning.engine.shards import Shard, batch_means, bounds, sharded
from vae_lightning.runs import Run

# Plain gradient descent: Adam would take the rounding errors of gradients that are zero for whole steps.
SGD = ["model.optimizer._target_=torch.optim.SGD", "model.optimizer.lr=0.0001", "data.validation_size=9"]
# Neither the training nor the validation nor the test set is a multiple of anything.
ODD = ["data.source.train_size=100", "data.source.test_size=41", "trainer.max_epochs=3", *SGD]
ODD += UNDRAWN
TWO = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]


@pytest.mark.parametrize("processes", [1, 2, 3, 7])
def test_every_image_once_an_epoch(processes: int) -> None:
    parts = [list(Batches(32, EpochShuffle(100, seed=3), rank, processes)) for rank in range(processes)]
    assert all(len(part) == 4 for part in parts)
    whole = [torch.cat([torch.from_numpy(chosen.indices) for chosen in step]) for step in zip(*parts, strict=True)]
    assert torch.equal(torch.cat(whole), EpochShuffle(100, seed=3).order())
    if processes > 1:
        for step in zip(*parts, strict=True):
            assert [chosen.shard[1] for chosen in step] == [sum(len(chosen.indices) for chosen in step)] * processes
            assert max(len(chosen.indices) for chosen in step) - min(len(chosen.indices) for chosen in step) <= 1


# A posterior with full covariance, which draws by itself, and a dropout before it; see tests/foreign.
FOREIGN = Path(__file__).parent / "foreign"
CONDITIONAL = ["model/labels=embedded", "model/prior=class_conditional"]
FEW_LABELS = ["model/objective=m2", *CONDITIONAL, "model.labels.classes=3", "model.objective.labelled=0.7"]
OWN_POSTERIOR = ["model=own", "model.objective._target_=vae_lightning.objectives.ELBO", "~model.objective.latent_dim"]


def step_in_parts(rank: int, processes: int, options: list[str], folder: Path) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=(folder / "port").read_text())
    dist.init_process_group("gloo", rank=rank, world_size=processes, timeout=timedelta(seconds=60))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    small = [option for option in TINY if "width" not in option or "model=own" not in options]
    sys.path.append(str(FOREIGN))
    model = instantiate(compose(*small, *options, config_dir=FOREIGN).model, _convert_="all").double()
    SharedBatchNorms().apply(model)
    assert any(isinstance(layer, SharedBatchNorm) for layer in model.modules()) != ("model=own" in options)
    images = torch.rand(13, 1, 28, 28, dtype=torch.float64)
    labels = torch.arange(13) % 3 - int("model/objective=m2" in options)  # there, some are hidden
    start, end = bounds(13, rank, processes)
    mine = images[start:end]
    with sharded(Shard(Batch(mine), start, 13)):
        drawn = (torch.rand_like(mine) < mine).double()
        means, total = batch_means(model.objective(model, Batch(drawn, labels[start:end])))
        means["loss"].backward()
    assert total == 13
    found = [parameter.grad / processes for parameter in model.parameters() if parameter.grad is not None]
    for tensor in found:
        dist.all_reduce(tensor)
    found.append(torch.stack(list(means.values())).detach())
    if rank == 0:
        assert len(model.eval().sample(3)) == 3  # as grids do: the others are not asked
    SharedBatchNorms().revert(model)
    assert not any(isinstance(layer, SharedBatchNorm) for layer in model.modules())
    if rank == 0:
        torch.save(found + list(model.buffers()), folder / f"{processes}.pt")
    dist.destroy_process_group()


ON_SPHERE = ["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"]


OTHERS = [
    *(["model/objective=iwae"], ["model/objective=as_printed"], ["model/prior=vamp"], ["model/objective=rae_gp"]),
    *(["model/posterior=iaf", "model/prior=flow"], [*ON_SPHERE, "model/objective=iwae"], FEW_LABELS),
    ["model/posterior=ladder", "model/prior=ladder"],
    ["model/objective=geco", "model/likelihood=optimal_sigma"],
    ["model/posterior=vq", "model/prior=uniform_codes", "model/objective=vq", "model.latent_dim=8"],
    CONDITIONAL,
]


@pytest.mark.parametrize(
    "options",
    [
        *([], OWN_POSTERIOR),
        *(pytest.param(options, marks=pytest.mark.slow) for options in OTHERS),
    ],
    ids=lambda options: options[0] if options else "conv",
)
def test_gradients_and_statistics_are_those_of_the_whole_batch(tmp_path: Path, options: list[str]) -> None:
    """In float64, against a single process; 5 processes have parts of 2 and 3 images."""
    counts = (1, 3) if options else (1, 2, 5)
    for processes in counts:
        (tmp_path / "port").write_text(str(20_000 + os.getpid() % 20_000 + processes))
        start_processes(step_in_parts, (processes, options, tmp_path), processes, start_method="fork")
    alone, *others = (torch.load(tmp_path / f"{processes}.pt") for processes in counts)
    for other in others:
        for one, two in zip(alone, other, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-9)


def test_shared_batch_norm_is_batch_norm(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        for kind, shape in [(nn.BatchNorm2d, (6, 3, 4, 5)), (nn.BatchNorm1d, (6, 3))]:
            torch.manual_seed(0)
            plain, x = kind(3, momentum=0.3), torch.randn(shape, requires_grad=True)
            nn.init.normal_(plain.weight)
            shared = kind(3, momentum=0.3)
            shared.load_state_dict(plain.state_dict())
            SharedBatchNorms().apply(nn.Sequential(shared))
            outcomes = []
            for layer in (plain, shared):
                outcome = layer(x).pow(3).sum()
                (gradient,) = torch.autograd.grad(outcome, x)
                outcomes.append([outcome, gradient, *layer.buffers(), layer.eval()(x)])
            torch.testing.assert_close(*outcomes, rtol=1e-4, atol=1e-4)
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    done = run_command("vae_lightning.cli", *TINY, *ODD, "model.latent_dim=2,3", "-m", *SWEEP, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


SWEEP = ["hydra.sweep.dir=sweep"]


def compared(one: Path, other: Path) -> None:
    tables = [pd.read_csv(sweep / "report" / "metrics.csv") for sweep in (one, other)]
    timing = ["seconds_training", "images_per_second"]
    first, second = (table.sort_values("run").drop(columns=timing).reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(first, second, rtol=2e-3, atol=1e-4)
    assert (first["test/elbo"] - second["test/elbo"]).abs().max() < 0.01


@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="resident", marks=pytest.mark.slow),
        pytest.param(["data.resident=false", "data.num_workers=1"], id="loaded", marks=pytest.mark.slow),
    ],
)
def test_a_sweep_of_trainings_in_two_processes(alone: Path, tmp_path: Path, options: list[str]) -> None:
    arguments = [*TINY, *ODD, *TWO, *options, "model.latent_dim=2,3", "-m", *SWEEP]
    done = run_command("vae_lightning.cli", *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.count("device     2 × cpu") == 2
    assert done.stdout.count("epoch 3/3  batch   3/3") == 2
    compared(alone, tmp_path / "sweep")
    assert sorted(p.name for p in (tmp_path / "sweep").iterdir()) == sorted(p.name for p in alone.iterdir())
    contents = [sorted(p.name for p in (sweep / "latent_dim-2").iterdir()) for sweep in (alone, tmp_path / "sweep")]
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_training_in_two_processes(tmp_path: Path) -> None:
    for processes, folder in ([], "one"), (TWO, "two"):
        done = run_command("vae_lightning.cli", *TINY, *ODD, *processes, f"hydra.run.dir={folder}", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
    one, two = (Run(tmp_path / folder).metrics for folder in ("one", "two"))
    assert one.keys() == two.keys()
    assert one["test/elbo"] == pytest.approx(two["test/elbo"], abs=0.01)


@pytest.mark.slow
def test_under_torchrun(alone: Path, tmp_path: Path) -> None:
    """Only the first process reads the command line; the other one follows it from job to job."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "vae_lightning.cli"]
    done = subprocess.run(
        [*torchrun, *TINY, *ODD, *TWO, "model.latent_dim=2,3", "-m", *SWEEP],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "2 of 2 runs finished" in done.stdout
    compared(alone, tmp_path / "sweep")
    assert [path.name for path in tmp_path.iterdir()] == ["sweep"]


TASK = """
import sys
from pathlib import Path
from vae_lightning import compose
from vae_lightning.runs import Run
from vae_lightning.training import execute

execute(compose(*sys.argv[1:]), Run(Path("run")))
"""


@pytest.mark.slow
def test_tasks_of_a_slurm_step(alone: Path, tmp_path: Path) -> None:
    """Two processes that have composed the same job themselves, and the variables by which SLURM tells them apart."""
    (tmp_path / "run").mkdir()
    step = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "x", "SLURM_JOB_ID": "77"}
    step |= {"SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_NNODES": "1", "OMP_NUM_THREADS": "1"}
    tasks = [
        subprocess.Popen(
            [sys.executable, "-c", TASK, *TINY, *ODD, *TWO],
            cwd=tmp_path,
            env={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    errors = [task.communicate(timeout=120)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], errors
    found, expected = Run(tmp_path / "run").metrics, Run(alone / "latent_dim-2").metrics
    assert found["test/elbo"] == pytest.approx(expected["test/elbo"], abs=0.01)
    assert found.keys() == expected.keys()


def started(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "vae_lightning.cli", *TINY, *ODD, *TWO, "logger=none", *options]
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "epoch 2/" in line:
            return process
    raise AssertionError(process.communicate())


def children(process: subprocess.Popen[str]) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


@pytest.mark.slow
def test_a_process_that_dies_is_named(tmp_path: Path) -> None:
    process = started(tmp_path, "hydra.run.dir=run", "trainer.max_epochs=500")
    (other,) = children(process)
    os.kill(other, signal.SIGKILL)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == 1
    assert "process 1 of the training was ended by signal 9" in errors
    assert "Traceback" not in errors


@pytest.mark.slow
def test_all_processes_stop_and_resume_together(tmp_path: Path) -> None:
    options = ["trainer.max_epochs=24"]
    process = started(tmp_path, "hydra.run.dir=parts", *options)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "its state has been saved" in errors
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process.pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    ends = []
    for arguments in (["hydra.run.dir=parts", "resume=true"], ["hydra.run.dir=whole"]):
        command = [*TINY, *ODD, *TWO, "logger=none", *options, *arguments]
        done = run_command("vae_lightning.cli", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        run = Run(tmp_path / arguments[0].partition("=")[2])
        weights = torch.load(run.checkpoint_file, weights_only=True)["state_dict"]
        metrics = json.loads(run.metrics_file.read_text())
        ends.append((weights, {name: value for name, value in metrics.items() if name.startswith("test/")}))
    assert all(torch.equal(weight, ends[1][0][name]) for name, weight in ends[0][0].items())
    assert ends[0][1] == ends[1][1]


@pytest.mark.slow
def test_a_mistake_is_told_once(tmp_path: Path) -> None:
    done = run_command("vae_lightning.cli", *TINY, *TWO, "data.batch_size=95", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["data.batch_size=95: leaves a batch of 1 for 2 devices"]
