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

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

NEEDED = {"latent_dim", "epochs", "test/elbo", "test/distortion", "test/rate"}  # metrics of every finished run

__all__ = [
    "Run",
    "forget_paths",
    "plain_cell",
    "read_hydra",
    "run_name",
    "short_names",
    "short_path",
    "shown",
    "sweep_overrides",
    "sweep_runs",
    "swept_keys",
    "write_file",
    "write_json",
]


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


def load_yaml(file: Path) -> Any:
    """Plain data of a YAML file, by the fast reader where there is one; no tag makes an object."""
    return yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_hydra(file: Path) -> Mapping[str, Any]:
    """The `hydra` node of one of the files that Hydra writes; empty where it is missing or damaged."""
    try:
        found = load_yaml(file)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    node = found.get("hydra") if isinstance(found, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def forget_paths(file: Path) -> None:
    """Takes the user's folders out of one of the files that Hydra writes: no run depends on them."""
    hydra = read_hydra(file)
    runtime = hydra.get("runtime")
    if not isinstance(runtime, dict):
        return
    kept = {key: value for key, value in runtime.items() if key not in ("cwd", "config_sources", "output_dir")}
    write_file(file, yaml.safe_dump({"hydra": {**hydra, "runtime": kept}}, sort_keys=False).encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a file so that it is there whole or not at all."""
    write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file so that it is there whole or not at all; what was there before stays if it cannot be written.

    Raises:
        OSError: with the file's name.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise OSError(error.errno, error.strerror, str(path)) from error


def sweep_runs(sweep: Path) -> list[Run]:
    """The runs of a sweep folder, in the order of their jobs."""
    runs = [Run(path.parent.parent) for path in sweep.glob("*/.hydra/hydra.yaml")]
    return sorted(runs, key=lambda run: (_job_number(run), run.name))


def _job_number(run: Run) -> int:
    number = run.hydra("job").get("num")
    return number if isinstance(number, int) else 0


def swept_keys(sweep: Path) -> list[str]:
    """The keys that a sweep varies, in Hydra's order, read from its `multirun.yaml`; none without that file."""
    from hydra.errors import OverrideParseException

    hydra = read_hydra(sweep / "multirun.yaml")
    try:
        return list(sweep_overrides(hydra)) if hydra else []
    except (KeyError, TypeError, AttributeError, OverrideParseException):  # it has been tampered with
        return []


def sweep_overrides(hydra: Mapping[str, Any]) -> "dict[str, Override]":
    """What a sweep varies, by key: those overrides of a sweep's `hydra` node that stand for several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = [f"{key}={value}" for key, value in (hydra["sweeper"].get("params") or {}).items()]
    # The command line comes last and wins over the configuration, as it does in Hydra's sweeper.
    overrides = OverridesParser.create().parse_overrides([*params, *hydra["overrides"]["task"]])
    last = {override.key_or_group: override for override in overrides}
    return {key: override for key, override in last.items() if override.is_sweep_override()}


def run_name(sweep: str, overrides: Sequence[str]) -> str:
    """Name of a job's folder: what was swept, as in `latent_dim-128_seed-1`.

    Names hold letters, digits and `._-` only, which neither a shell nor Hydra's grammar would need quoted. Where a
    value has other characters, or is long, a digest keeps names apart.

    Args:
        sweep: the sweep's folder, with `multirun.yaml` in it.
        overrides: the job's own overrides, `key=value`.

    >>> run_name("nowhere", ["model.latent_dim=2", "model/objective=beta", "model.encoder.hidden=[64,32]"])
    'latent_dim-2_objective-beta_hidden-64-32-0d1c05'
    """
    keys = swept_keys(Path(sweep))
    parts = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    chosen = {key: value for key, value in parts.items() if not keys or key in keys}
    short = short_names(chosen)
    name = "_".join(f"{short[key]}-{_plain(value)}" for key, value in chosen.items())
    return _plain(name, longest=150) if name else "run"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or as many parts as it takes to tell the keys apart.

    >>> short_names(["model.latent_dim", "model.encoder.width", "model.decoder.width"])
    {'model.latent_dim': 'latent_dim', 'model.encoder.width': 'encoder.width', 'model.decoder.width': 'decoder.width'}
    """
    keys = list(keys)
    names = {}
    for key in keys:
        parts = re.split(r"[./]", key.partition("@")[0])
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[-depth:])
            if sum(re.sub("/", ".", "/" + other).endswith("." + name) for other in keys) == 1:
                break
        names[key] = name
    return names


def short_path(folder: Path) -> str:
    """A path as one would type it from here."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def shown(value: Any) -> str:
    """A value as people read it: long decimals rounded.

    >>> shown(0.0036835616), shown("0.001"), shown("conv")
    ('0.003684', '0.001', 'conv')
    """
    text = str(value)
    return f"{float(text):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", text) else text


def plain_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula.

    >>> plain_cell("=cmd()"), plain_cell("-1.5"), plain_cell("conv")
    ("'=cmd()", '-1.5', 'conv')
    """
    formula = text[:1] in set("=+-@\t\r") and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text)
    return f"'{text}" if formula else text


def _plain(value: str, longest: int = 40) -> str:
    if (rounded := shown(value)) != value:
        return f"{rounded}-{hashlib.sha256(value.encode()).hexdigest()[:4]}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", value)
    if plain == value and len(value) <= longest:
        return value
    return f"{plain.strip('-')[:longest]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
