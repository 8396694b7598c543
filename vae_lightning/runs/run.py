"""A run on disk: where its files lie, what it is called, whether it is finished.

::

    <run>/.hydra/                 what was asked, as Hydra writes it
    <run>/config.yaml             what was run: resolved, without interpolations
    <run>/environment.json        versions, hardware, command line, start time
    <run>/train.log
    <run>/tensorboard/            events
    <run>/checkpoints/last.ckpt
    <run>/figures/                every picture as PNG; figures.npz: the arrays they were drawn from; explorer.npz:
                                  what the report's explorer shows; curves.npz: the terms of the loss by step
    <run>/metrics.json            written last, at once or not at all: it marks a finished run
    <run>/error.txt               traceback of a failed run
    <sweep>/multirun.yaml         what was swept, as Hydra writes it
    <sweep>/report/               the comparison
"""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .files import load_yaml, read_hydra

__all__ = ["NEEDED", "Run"]

NEEDED = {"latent_dim", "epochs", "test/elbo", "test/distortion", "test/rate"}  # metrics of every finished run


@dataclass(frozen=True)
class Run:
    """The folder of one training.

    Args:
        folder: where it lies; it need not exist yet.
    """

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

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
        """Where the grid of samples after an optimizer step lies."""
        return self.figures / "grids" / f"step_{step:06d}.png"

    def grids(self) -> dict[int, Path]:
        """The grids of samples that were drawn during training, by optimizer step."""
        files = sorted((self.figures / "grids").glob("step_*.png"))
        steps = {file.stem.removeprefix("step_"): file for file in files}
        return {int(step): file for step, file in steps.items() if step.isdecimal()}

    @property
    def checkpoint_file(self) -> Path:
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def tensorboard(self) -> Path:
        return self.folder / "tensorboard"

    @cached_property
    def finished(self) -> bool:
        """Whether there are metrics and a configuration that can be read."""
        try:
            return bool(self.metrics and self.config)
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
    def metrics(self) -> dict[str, Any]:
        """The final metrics, by name.

        Raises:
            FileNotFoundError: if the run is not finished.
            ValueError: if the file is damaged: not an object of finite numbers, or one of `NEEDED` is missing.
        """
        found = json.loads(self.metrics_file.read_bytes())
        numbers = isinstance(found, dict) and all(
            isinstance(value, int | float) and math.isfinite(value) for value in found.values()
        )
        if not (numbers and found.keys() >= NEEDED):
            raise ValueError("not the metrics of a run")
        return found

    @property
    def failure(self) -> str:
        """Why it is not finished, in one line."""
        if self.metrics_file.is_file():
            try:
                return f"{self.config_file.name} is damaged" if self.metrics else ""
            except (OSError, ValueError):
                return f"{self.metrics_file.name} is damaged"
        with suppress(OSError, ValueError, IndexError):
            return self.error_file.read_text(errors="replace").strip().splitlines()[-1]
        return "not finished"

    def option(self, key: str) -> Any:
        """Value of a configuration key, dotted, or of a group choice (`model/objective`); None where there is none."""
        try:
            self.config  # noqa: B018 -- it may be damaged
        except (OSError, ValueError):
            return None
        if "/" in key or isinstance(self._lookup(key), Mapping):
            return self._choices().get(key, self._choices().get(key.replace(".", "/")))
        return self._lookup(key)

    def _lookup(self, key: str) -> Any:
        node: Any = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, Mapping) else None
        return node

    def _choices(self) -> dict[str, str]:
        return self.hydra("runtime").get("choices") or {}

    def hydra(self, node: str) -> Mapping[str, Any]:
        """A node of what Hydra has noted of the run; empty where that is missing or damaged."""
        found = self._hydra.get(node)
        return found if isinstance(found, Mapping) else {}

    @cached_property
    def _hydra(self) -> Mapping[str, Any]:
        return read_hydra(self.hydra_file)
