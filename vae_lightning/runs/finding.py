"""Runs on disk, wherever they are: found in folders of folders, chosen by a condition, listed as a table."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from .claiming import state_of
from .options import differing_options
from .run import Run
from .where import matching

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["USUAL", "find_runs", "folders_of_runs", "runs_in", "size_of", "table_of"]

USUAL = ("multirun", "outputs")  # where commands put runs


def find_runs(*places: str | Path, where: str = "") -> "pd.DataFrame":
    """Returns the runs in some folders, at any depth, as a table.

    Args:
        places: folders, or patterns such as `multirun/2026-*`; by default `multirun` and `outputs`, in the current
            folder.
        where: a condition, such as `latent_dim <= 16 and state == 'finished'`; see
            `vae_lightning.runs.where.matching`.

    Returns:
        A row for each run, in the order of their folders: `folder`, `state` (finished, running, interrupted or failed),
        `started`, `version` of this package, `bytes` on disk, the options that differ, and all metrics.

    Raises:
        UsageError: if there is no such folder, or the condition is none.

    >>> find_runs(where="data == 'kmnist10k'").sort_values("test/elbo")  # doctest: +SKIP
    """
    return table_of(runs_in(places, where))


def table_of(runs: Sequence[Run]) -> "pd.DataFrame":
    """Returns runs as the table of `find_runs`."""
    import pandas as pd

    keys = differing_options(runs)
    rows = [
        {
            "folder": str(run.folder),
            "state": state_of(run),
            "started": run.started,
            "version": run.version,
            "bytes": size_of(run),
            **{key: run.option(key) for key in keys},
            **(run.metrics if run.finished else {}),
        }
        for run in runs
    ]
    return pd.DataFrame(rows, columns=None if rows else ["folder", "state", "started", "version", "bytes"])


def runs_in(places: Sequence[str | Path], where: str = "") -> list[Run]:
    """Returns the runs in some folders, at any depth, each one once, in the order of their folders.

    Args:
        places: as for `find_runs`.
        where: a condition, or nothing.

    Raises:
        UsageError: as for `find_runs`.
    """
    found: dict[Path, Run] = {}
    for place in _existing(places):
        for folder in folders_of_runs(place):
            found.setdefault(folder.resolve(), Run(folder))
    runs = list(found.values())
    return matching(runs, where) if where else runs


def folders_of_runs(place: Path) -> Iterator[Path]:
    """Yields the folders of runs in a folder, at any depth, in the order of names and numbers; itself if it is one.

    Neither links nor hidden folders are followed, and there are no runs within runs.
    """
    for folder, within, files in os.walk(place):
        path = Path(folder)
        if ("config.yaml" in files and "environment.json" in files) or (path / ".hydra" / "hydra.yaml").is_file():
            within.clear()
            yield path
        within[:] = sorted((name for name in within if not name.startswith(".")), key=_by_numbers)


def _by_numbers(name: str) -> list[tuple[int, str]]:
    """What to sort names by, so that `latent_dim-2` comes before `latent_dim-16`."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def size_of(run: Run) -> int:
    """Returns the bytes of a run's files."""
    total = 0
    for folder, _, files in os.walk(run.folder):
        for file in files:
            with suppress(OSError):  # removed meanwhile
                total += (Path(folder) / file).lstat().st_size
    return total


def _existing(places: Sequence[str | Path]) -> Iterator[Path]:
    if not places:
        usual = [Path(name) for name in USUAL if Path(name).is_dir()]
        if not usual:
            raise UsageError("neither multirun nor outputs is in the current folder: name the folders to look in")
        yield from usual
    for place in map(str, places):
        matches = [place] if Path(place).is_dir() else sorted(glob(place, recursive=True))  # noqa: PTH207 - absolute ones, too
        if not matches:
            raise UsageError(f"{place}: no such folder")
        yield from (Path(match) for match in matches if Path(match).is_dir())
