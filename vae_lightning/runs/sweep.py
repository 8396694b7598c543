"""The folder of a sweep: its runs, the options it varies, and whether it is a hyperparameter search."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .atomic import read_hydra
from .run import Run

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = [
    "SWEEPER",
    "is_search",
    "job_overrides",
    "sweep_overrides",
    "sweep_runs",
    "swept_keys",
]

SWEEPER = "OptunaSweeper"  # the class that runs searches


def sweep_runs(sweep: Path) -> list[Run]:
    """Returns the runs in a sweep folder, in job order; that of a failed job may have no `config.yaml`."""
    found = {file.parent for file in sweep.glob("*/config.yaml")}
    found |= {file.parent.parent for file in sweep.glob("*/.hydra/hydra.yaml")}
    runs = [Run(folder) for folder in found if not folder.name.startswith(".")]
    return sorted(runs, key=lambda run: (_job_number(run), run.name))


def _job_number(run: Run) -> int:
    number = run.hydra("job").get("num")
    return number if isinstance(number, int) else 0


def is_search(sweep: Path) -> bool:
    """Returns whether the sweep is a search, with values chosen by Optuna."""
    sweeper = read_hydra(sweep / "multirun.yaml").get("sweeper")
    return isinstance(sweeper, dict) and SWEEPER in str(sweeper.get("_target_"))


def swept_keys(sweep: Path) -> list[str]:
    """Returns the keys that a sweep varies, in Hydra's order, from its `multirun.yaml`; none without that file."""
    from hydra.errors import OverrideParseException

    hydra = read_hydra(sweep / "multirun.yaml")
    try:
        return list(sweep_overrides(hydra)) if hydra else []
    except (KeyError, TypeError, AttributeError, OverrideParseException):  # the file has been edited
        return []


def sweep_overrides(hydra: Mapping[str, Any]) -> "dict[str, Override]":
    """Returns the overrides with several values in a sweep's `hydra` node, by key."""
    return {key: override for key, override in _overrides(hydra).items() if override.is_sweep_override()}


def job_overrides(hydra: Mapping[str, Any], run: Run) -> list[str]:
    """Returns the overrides with which a sweep would start one of its runs: what it sweeps has the run's values."""
    own = {override.key_or_group: override for override in _parsed(run.hydra("overrides").get("task") or [])}
    asked = {key: own.get(key) if each.is_sweep_override() else each for key, each in _overrides(hydra).items()}
    return [str(override.input_line) for override in asked.values() if override]


def _overrides(hydra: Mapping[str, Any]) -> "dict[str, Override]":
    params = [f"{key}={value}" for key, value in (hydra["sweeper"].get("params") or {}).items()]
    # As in Hydra's sweeper, the command line overrides the configuration.
    return {override.key_or_group: override for override in _parsed([*params, *hydra["overrides"]["task"]])}


def _parsed(overrides: list[str]) -> "list[Override]":
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_overrides(overrides)
