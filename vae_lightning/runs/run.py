"""A run on disk: its files, name, configuration, metrics and status.

::

    <run>/.hydra/                 the requested configuration, as written by Hydra
    <run>/config.yaml             the configuration of the run, resolved; `choices` has the choice of each group
    <run>/environment.json        versions, hardware, command line, start time
    <run>/train.log
    <run>/tensorboard/, csv/, wandb/     what loggers record; loggers.json: names of the records that a resumed run
                                  continues in MLflow and Weights & Biases
    <run>/checkpoints/last.ckpt   checkpoint for resuming the run
    <run>/checkpoints/best.ckpt   chosen by a ModelCheckpoint, if there is one; the weights that are tested and loaded
    <run>/figures/                every figure as PNG; figures.npz: the arrays they were drawn from; explorer.npz:
                                  images for the report's explorer; curves.npz: the loss terms by step
    <run>/metrics.json            written last and atomically: marks a finished run
    <run>/evaluations/<name>.json   metrics of a finished run that was measured again, and how they were measured
    <run>/error.txt               traceback of a failed run
    <sweep>/multirun.yaml         the swept options, as written by Hydra
    <sweep>/report/               the comparison
"""

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .atomic import load_yaml, read_hydra

__all__ = ["NEEDED", "VERSION", "Run"]

VERSION = "version"  # of this package, among the keys in which runs differ
NEEDED = {"latent_dim", "epochs", "test/loss", "test/distortion"}  # metrics of every finished run
NOT_OPTIONS = {"_target_", "_partial_", "_convert_", "_recursive_"}  # of a node that makes an object


@dataclass(frozen=True)
class Run:
    """The folder of one training.

    Args:
        folder: its path; it need not exist yet.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name or self.folder.resolve().name

    @property
    def config_file(self) -> Path:
        return self.folder / "config.yaml"

    @property
    def environment_file(self) -> Path:
        return self.folder / "environment.json"

    @property
    def metrics_file(self) -> Path:
        return self.folder / "metrics.json"

    @property
    def error_file(self) -> Path:
        return self.folder / "error.txt"

    @property
    def loggers_file(self) -> Path:
        return self.folder / "loggers.json"

    @property
    def hydra_file(self) -> Path:
        return self.folder / ".hydra" / "hydra.yaml"

    @property
    def figures(self) -> Path:
        return self.folder / "figures"

    @property
    def curves_file(self) -> Path:
        return self.figures / "curves.npz"

    @property
    def arrays_file(self) -> Path:
        return self.figures / "figures.npz"

    @property
    def explorer_file(self) -> Path:
        return self.figures / "explorer.npz"

    def grid_file(self, step: int) -> Path:
        """Returns the file of the grid of samples after an optimizer step."""
        return self.figures / "grids" / f"step_{step:06d}.png"

    def grids(self) -> dict[int, Path]:
        """Returns the files of the grids of samples drawn during training, by optimizer step."""
        files = sorted((self.figures / "grids").glob("step_*.png"))
        steps = {file.stem.removeprefix("step_"): file for file in files}
        return {int(step): file for step, file in steps.items() if step.isdecimal()}

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def best_file(self) -> Path:
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def weights_file(self) -> Path:
        """The checkpoint whose weights were tested."""
        return self.best_file if self.best_file.is_file() else self.checkpoint_file

    def prior_file(self, name: str) -> Path:
        """Returns the file of a prior that was fitted afterwards."""
        return self.folder / "priors" / f"{name}.pt"

    def priors(self) -> list[str]:
        """Returns the names of the priors that were fitted afterwards."""
        return sorted(file.stem for file in (self.folder / "priors").glob("*.pt"))

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @cached_property
    def finished(self) -> bool:
        """Whether the metrics and the configuration exist and can be read."""
        try:
            return bool(self.metrics and self.config)
        except (OSError, ValueError):
            return False

    @cached_property
    def has_config(self) -> bool:
        """Whether the configuration exists and can be read."""
        try:
            return bool(self.config)
        except (OSError, ValueError):
            return False

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if the file is damaged.
        """
        try:
            found = load_yaml(self.config_file)
        except (yaml.YAMLError, RecursionError) as error:
            raise ValueError(str(error)) from error
        if not isinstance(found, dict):
            raise ValueError("not a mapping")
        return found

    @cached_property
    def environment(self) -> dict[str, Any]:
        """What the run was trained with: versions, hardware, command line; empty if the file is missing or damaged."""
        with suppress(OSError, ValueError):
            found = json.loads(self.environment_file.read_bytes())
            return found if isinstance(found, dict) else {}
        return {}

    @property
    def digests(self) -> dict[str, Any]:
        """Digests of the images it is trained and tested on, by split; empty if unknown."""
        found = self.environment.get("data")
        return found if isinstance(found, dict) else {}

    @property
    def version(self) -> str | None:
        """The version of this package that trained the run; None if unknown."""
        found = self.environment.get("vae-lightning")
        return found[:40] if isinstance(found, str) else None

    @property
    def started(self) -> str:
        """When the run was started, or last taken up, as in `2026-01-31T12:00:00+00:00`; empty if unknown."""
        return str(self.environment.get("started", ""))[:40]

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The final metrics, by name.

        Raises:
            FileNotFoundError: if the run is not finished.
            ValueError: if the file is damaged: not an object of finite numbers, or one of `NEEDED` is missing.
        """
        found = json.loads(self.metrics_file.read_bytes())
        if not (_are_numbers(found) and found.keys() >= NEEDED):
            raise ValueError("not the metrics of a run")
        return found

    def evaluation_file(self, name: str) -> Path:
        """Returns the file of an evaluation of the finished run."""
        return self.folder / "evaluations" / f"{name}.json"

    @cached_property
    def evaluations(self) -> dict[str, dict[str, float]]:
        """The metrics of evaluations, by the evaluations' names.

        Files that are damaged are ignored, and so are those of a state from which the run has been trained further.
        """
        found = {}
        for file in sorted(self.evaluation_file("*").parent.glob("*.json")):
            with suppress(OSError, ValueError):
                content = json.loads(file.read_bytes())
                content = content if isinstance(content, dict) else {}
                metrics = content.get("metrics")
                present = self.finished and content.get("steps") == self.metrics.get("steps")
                if metrics and present and re.fullmatch(r"[\w.-]+", file.stem) and _are_numbers(metrics):
                    found[file.stem] = metrics
        return found

    @property
    def failure(self) -> str:
        """The reason why the run is not finished, in one line."""
        if self.metrics_file.is_file():
            try:
                return f"{self.config_file.name} is damaged" if self.metrics else ""
            except (OSError, ValueError):
                return f"{self.metrics_file.name} is damaged"
        with suppress(OSError, ValueError, IndexError):
            return self.error_file.read_text(errors="replace").strip().splitlines()[-1]
        return "not finished"

    def option(self, key: str) -> Any:
        """Returns the value of a dotted key, or the choice of a group (`model/objective`); None if there is none.

        A node without a choice is written as a call, `Adam(lr=0.001)`. For a key that ends with `_target_`, returns the
        name of the class without its module; for `version`, that of this package.
        """
        if key == VERSION:
            return self.version
        if not self.has_config:
            return None
        value = self._lookup(key)
        if "/" in key or isinstance(value, Mapping):
            chosen = self.choices.get(key, self.choices.get(key.replace(".", "/")))
            return _as_call(value) if chosen is None and value else chosen
        if value is None:  # a group that fills another node than its own, as `schedule` does
            return self.choices.get(key)
        return str(value).rpartition(".")[2] if key.endswith("._target_") and value else value

    def _lookup(self, key: str) -> Any:
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    @property
    def choices(self) -> Mapping[str, str]:
        """The choice of each group, from `config.yaml`, or from Hydra's files for runs of older versions."""
        noted = self.config.get("choices") if self.has_config else None
        found = noted or self.hydra("runtime").get("choices")
        return found if isinstance(found, Mapping) else {}

    def hydra(self, node: str) -> Mapping[str, Any]:
        """Returns a node of the run's `hydra.yaml`; empty if the file is missing or damaged."""
        found = self._hydra.get(node)
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def _hydra(self) -> Mapping[str, Any]:
        return read_hydra(self.hydra_file)


def _as_call(node: Any) -> str:
    """A node of the configuration as a constructor call, or as a dictionary if it makes nothing.

    >>> _as_call({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}), _as_call({"interval": "step"})
    ('SGD(lr=0.1)', '{interval=step}')
    """
    if not isinstance(node, Mapping):
        return str(node)
    options = ", ".join(f"{key}={_as_call(value)}" for key, value in node.items() if key not in NOT_OPTIONS)
    return f"{str(node['_target_']).rpartition('.')[2]}({options})" if "_target_" in node else f"{{{options}}}"


def _are_numbers(found: Any) -> bool:
    """Returns whether this is a mapping to finite numbers."""
    return isinstance(found, dict) and all(
        isinstance(value, int | float) and math.isfinite(value) for value in found.values()
    )
