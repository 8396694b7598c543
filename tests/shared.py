"""What test files share: small options, composing the configuration in process, running commands as a user does."""

import copy
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from forked import Forked
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vae_lightning.config import compose

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
    "callbacks.grids.images=9",
    "callbacks.figures.lattice_cells=3",
    "callbacks.figures.quantile_cells=3",
    "callbacks.figures.reconstructions=5",
    "callbacks.figures.samples=9",
    "callbacks.figures.traversed=2",
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

# Leaves out what draws and measures at the end of a run, for tests that do not look at it.
UNDRAWN = ["~callbacks.grids", "~callbacks.figures", "~callbacks.explorer", "~callbacks.views"]
UNMEASURED = [*UNDRAWN, "~callbacks.measurements"]

os.environ.setdefault("VAE_CACHE_DIR", str(Path(tempfile.gettempdir()) / f"vae-lightning-tests-{os.getuid()}"))
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


def start_command(
    module: str, *arguments: str, cwd: Path, said: Path, **environment: str
) -> subprocess.Popen[bytes] | Forked:
    """Starts `python -m module` in a folder, as its console script would; its output goes to two files in `said`.

    VAE_TEST_PROCESSES=1 starts each anew instead of forking it.
    """
    settings = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    settings.pop("HYDRA_FULL_ERROR", None) if "HYDRA_FULL_ERROR" not in environment else None
    files = said / "stdout", said / "stderr"
    for file in files:
        file.touch()
    if os.environ.get("VAE_TEST_PROCESSES") != "1":
        return Forked(module, arguments, cwd, settings, *map(str, files))
    with open(files[0], "wb") as stdout, open(files[1], "wb") as stderr:
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=cwd, env=settings, stdout=stdout, stderr=stderr)


def run_command(module: str, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m module` in a folder to its end, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        said = Path(folder)
        code = start_command(module, *arguments, cwd=cwd, said=said, **environment).wait(240)
        texts = ((said / name).read_text() for name in ("stdout", "stderr"))
        return subprocess.CompletedProcess([module, *arguments], code, *texts)


class Swept(NamedTuple):
    folder: Path
    printed: str


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
