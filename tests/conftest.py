"""What several test files share: composing the configuration in process, and running the commands as a user does."""

import copy
import gc
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import NamedTuple

import forked
import pytest
import torch
from filelock import FileLock
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.config import compose
from vae_lightning.generate import main as generate_command
from vae_lightning.vae import VAE

collect_ignore = ["benchmarks/against_pythae.py"]  # runs in an environment of its own

# A model and a data set that are as small as they can be while every part of the code still has work to do.
TINY = [
    "data=glyphs",
    "data.source.train_size=96",
    "data.source.test_size=40",
    "data.batch_size=32",
    "data.eval_batch_size=16",
    "model.encoder.width=4",
    "model.decoder.width=4",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "callbacks.losses.every_n_batches=1",
    "callbacks.grids.every_n_batches=1",
    "callbacks.measurements.bound_samples=3",
    "callbacks.measurements.factor_images=0",
    "callbacks.measurements.plane_points=30",
    "callbacks.measurements.tsne=false",
    "callbacks.explorer.cells=9",
]

# Choices that go together only.
ON_SPHERE = ["model/posterior=von_mises_fisher", "model/prior=uniform_sphere"]
CODES = ["model/posterior=vq", "model/prior=uniform_codes", "model.latent_dim=4"]
PARTNERS = {
    "model/prior=ladder": ["model/posterior=ladder"],
    **dict.fromkeys(ON_SPHERE, ON_SPHERE),
    **dict.fromkeys([*CODES[:2], "model/objective=vq"], CODES),
    "model/posterior=fsq": CODES[1:],
    "model/posterior=none": ["model/objective=wae_mmd"],
    "model/objective=m2": ["model/labels=embedded"],
}

# Begun first, so that no process is left with a long file at the end.
LONG_FILES = ["test_resume", "test_commands", "test_bad_inputs", "test_bad_data", "test_measurements", "test_processes"]

# Leaves out what draws and measures at the end of a run, for tests that do not look at it.
UNDRAWN = ["~callbacks.grids", "~callbacks.figures", "~callbacks.explorer", "~callbacks.views"]
UNMEASURED = [*UNDRAWN, "~callbacks.measurements"]

os.environ.setdefault("VAE_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"vae-lightning-tests-{os.getuid()}"))
gc.freeze()  # what is imported is not looked through at the end of every run
torch.set_num_threads(1)  # the test processes share the cores
os.environ["OMP_NUM_THREADS"] = "1"


def compose_config(*overrides: str, config_dir: Path | None = None) -> DictConfig:
    """The configuration as `vae_lightning.compose` gives it, but what the last values are set in is composed once.

    To compose takes as long as a tiny training. Hydra sets values after everything else and in their order; a test
    holds the two against each other.
    """
    plain = [bool(re.match(r"(\w+\.[\w.]+|seed|resume|run_dir)=", override)) for override in overrides]
    before = len(plain) - plain[::-1].index(False) if False in plain else 0
    try:
        config = copy.deepcopy(_composed(overrides[:before], config_dir))
        for override in OverridesParser.create().parse_overrides(list(overrides[before:])):
            OmegaConf.update(config, override.key_or_group, override.value())
    except (HydraException, OmegaConfBaseException):
        return compose(*overrides, config_dir=config_dir)  # for its message
    return config


@cache
def _composed(overrides: Sequence[str], config_dir: Path | None) -> DictConfig:
    return compose(*overrides, config_dir=config_dir)


@cache
def forks() -> ForkServerContext:
    """Processes forked from one that has imported `forked`, which finds it by PYTHONPATH alone."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["forked"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        forkserver.ensure_running()
    return context


def run_command(module: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module` in a folder, as its console script would, in a process of its own.

    The process is forked from one that has imported PyTorch and the rest already, which takes longer than most tests.
    VAE_TEST_PROCESSES=1 starts each anew.
    """
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    settings.pop("HYDRA_FULL_ERROR", None) if "HYDRA_FULL_ERROR" not in environment else None
    command = [sys.executable, "-m", module, *arguments]
    if os.environ.get("VAE_TEST_PROCESSES") == "1":
        return subprocess.run(command, cwd=cwd, env=settings, capture_output=True, text=True, timeout=240)
    with tempfile.TemporaryDirectory() as folder:
        said = [Path(folder, name) for name in ("stdout", "stderr")]
        process = forks().Process(target=forked.run, args=(module, arguments, str(cwd), settings, *map(str, said)))
        process.start()
        process.join(240)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(command, 240)
        return subprocess.CompletedProcess(command, process.exitcode, *(path.read_text() for path in said))


class Swept(NamedTuple):
    folder: Path
    printed: str


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Swept:
    """The chapter's sweep in small, over two seeds, and what was printed: made once for all test processes.

    Its tests leave it as it is.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "swept"
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            making = Path(f"{folder}.making")
            making.mkdir()
            options = ["experiment=latent_sweep", *TINY, "model.latent_dim=2,3", "seed=0,1", "trainer.max_epochs=6"]
            options += ["model.optimizer.lr=0.01", "callbacks.grids.every_n_batches=3"]
            done = run_command("vae_lightning.cli", *options, cwd=making, MY_SECRET="hunter2")
            assert done.returncode == 0, done.stdout + done.stderr
            assert done.stderr == ""
            (making / "printed").write_text(done.stdout)
            making.rename(folder)
    (sweep,) = (folder / "multirun").iterdir()
    return Swept(sweep, (folder / "printed").read_text())


def pytest_unconfigure() -> None:
    gc.unfreeze()  # otherwise libraries report leaks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: position for position, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def vae_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`vae-train` in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command("vae_lightning.cli", *arguments, cwd=tmp_path, **environment)

    return run


@pytest.fixture
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of decoded images and classifiers, an empty one."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VAE_CACHE_DIR", str(folder))
    return folder


@pytest.fixture
def generate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`vae-generate` in a folder of its own: its `main()`, in this process, which has PyTorch already."""

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(generate_command, "vae-generate", *arguments, capture=capfd, patch=monkeypatch)


def call(
    main: Callable[[], object],
    *command: object,
    capture: pytest.CaptureFixture[str],
    patch: pytest.MonkeyPatch,
) -> subprocess.CompletedProcess[str]:
    """What the `main()` of a command does in this process."""
    words = list(map(str, command))
    patch.setattr(sys, "argv", words)
    capture.readouterr()
    try:
        main()
        code = 0
    except SystemExit as done:
        code = int(done.code or 0)
    return subprocess.CompletedProcess(words, code, *capture.readouterr())


@pytest.fixture
def tiny_model() -> VAE:
    torch.manual_seed(0)
    return instantiate(compose_config(*TINY).model, _convert_="all")
