"""What several test files share: composing the configuration in process, and running the commands as a user does."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from omegaconf import DictConfig

from vae_lightning.config import CONFIGURATION
from vae_lightning.vae import VAE

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
    "callbacks.measurements.plane_points=30",
]

os.environ.setdefault("VAE_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"vae-lightning-tests-{os.getuid()}"))
torch.set_num_threads(1)  # the test processes share the cores


def compose_config(*overrides: str, folders: Sequence[Path] = ()) -> DictConfig:
    """The configuration that `vae-train` would compose."""
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
        return compose("train", overrides=[*overrides, *search])


def run_command(module: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module` in a folder, as its console script would."""
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    settings.pop("HYDRA_FULL_ERROR", None) if "HYDRA_FULL_ERROR" not in environment else None
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=cwd, env=settings, capture_output=True, text=True, timeout=240
    )


@pytest.fixture
def vae_train(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`vae-train` in an empty folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return run_command("vae_lightning.cli", *arguments, cwd=tmp_path, **environment)

    return run


@pytest.fixture
def tiny_model() -> VAE:
    torch.manual_seed(0)
    return instantiate(compose_config(*TINY).model, _convert_="all")
