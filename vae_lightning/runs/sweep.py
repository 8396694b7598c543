"""The folder of a sweep: its runs, what it varies, and whether an optimizer of hyperparameters chose the values."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import read_hydra
from .run import Run

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["SWEEPER", "best_first", "is_search", "sweep_overrides", "sweep_runs", "swept_keys"]

SWEEPER = "OptunaSweeper"  # the class that searches


def sweep_runs(sweep: Path) -> list[Run]:
    """Returns the runs of a sweep folder, in the order of their jobs; a failed job's may have no `config.yaml` yet."""
    found = {file.parent for file in sweep.glob("*/config.yaml")}
    found |= {file.parent.parent for file in sweep.glob("*/.hydra/hydra.yaml")}
    runs = [Run(folder) for folder in found if not folder.name.startswith(".")]
    return sorted(runs, key=lambda run: (_job_number(run), run.name))


def _job_number(run: Run) -> int:
    number = run.hydra("job").get("num")
    return number if isinstance(number, int) else 0


def is_search(sweep: Path) -> bool:
    """Returns whether Optuna chose the sweep's values, in view of earlier results."""
    sweeper = read_hydra(sweep / "multirun.yaml").get("sweeper")
    return isinstance(sweeper, dict) and SWEEPER in str(sweeper.get("_target_"))


def best_first(runs: Sequence[Run]) -> list[Run]:
    """Returns runs ordered by what a search maximises, unfinished ones last.

    That is the elbo of validation images, or of test images where there are no validation images.
    """

    def success(run: Run) -> float:
        return float(run.metrics.get("val/elbo", run.metrics["test/elbo"])) if run.finished else float("-inf")

    return sorted(runs, key=success, reverse=True)


def swept_keys(sweep: Path) -> list[str]:
    """Returns the keys that a sweep varies, in Hydra's order, from its `multirun.yaml`; none without that file."""
    from hydra.errors import OverrideParseException

    hydra = read_hydra(sweep / "multirun.yaml")
    try:
        return list(sweep_overrides(hydra)) if hydra else []
    except (KeyError, TypeError, AttributeError, OverrideParseException):  # the file has been edited
        return []


def sweep_overrides(hydra: Mapping[str, Any]) -> "dict[str, Override]":
    """Returns what a sweep varies, by key: those overrides of its `hydra` node that stand for several values."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    params = [f"{key}={value}" for key, value in (hydra["sweeper"].get("params") or {}).items()]
    # The command line comes last and wins over the configuration, as it does in Hydra's sweeper.
    overrides = OverridesParser.create().parse_overrides([*params, *hydra["overrides"]["task"]])
    last = {override.key_or_group: override for override in overrides}
    return {key: override for key, override in last.items() if override.is_sweep_override()}
