"""The folder of a sweep: its runs, and what it varies."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .files import read_hydra
from .run import Run

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override

__all__ = ["sweep_overrides", "sweep_runs", "swept_keys"]


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
