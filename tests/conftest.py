"""Fixtures.

What is large is imported where it is needed: of several processes, the one that only hands out tests needs none of it.
"""

import gc
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import forked
import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from shared import Swept

    from vae_lightning.vae import VAE

collect_ignore = [
    "benchmarks/against_pythae.py",
    "benchmarks/loop_of_keras.py",
    "benchmarks/loop_of_pythae.py",
    "benchmarks/train_pythae.py",
]  # run in an environment of their own

# Begun first, so that no process is left with a long file at the end; the first two start no commands, for which all
# is imported meanwhile, and only one of the next two needs the sweep, which the other would wait for.
LONG_FILES = ["test_types", "test_measurements", "test_commands", "test_resume", "test_bad_inputs", "test_processes"]


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("numprocesses", None) and os.environ.get("VAE_TEST_PROCESSES") != "1":
        forked.start()


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> "Swept":
    """The chapter's sweep in small, over two seeds, and what was printed: made once for all test processes.

    Its tests leave it as it is.
    """
    from shared import TINY, Swept, run_command

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


def pytest_collection_finish() -> None:
    gc.freeze()  # what is imported by now is not looked through again at the end of every run


def pytest_unconfigure() -> None:
    gc.unfreeze()  # otherwise libraries report leaks


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: position for position, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


@pytest.fixture
def vae_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`vae-train` in an empty folder."""
    from shared import run_command

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
    from shared import call

    from vae_lightning.generate import main

    monkeypatch.chdir(tmp_path)
    return lambda *arguments: call(main, "vae-generate", *arguments, capture=capfd, patch=monkeypatch)


@pytest.fixture
def tiny_model() -> "VAE":
    import torch
    from hydra.utils import instantiate
    from shared import TINY, compose_config

    torch.manual_seed(0)
    return instantiate(compose_config(*TINY).model, _convert_="all")
