"""What a run was made with, so that it can be repeated: versions of packages, the code's commit, the machine."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

__all__ = ["commit", "differing_environment", "environment", "packages"]

MAIN = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "vae-lightning")
PATIENCE = 5  # seconds for git
ELSEWHERE = {"command", "started", "packages", *MAIN}  # not compared, or not as they are


def environment(**more: Any) -> dict[str, Any]:
    """Returns what is written to a run's `environment.json`.

    Args:
        more: what only the training knows, such as its device.
    """
    installed = packages()
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{name: installed.get(name) for name in MAIN},
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        **more,
        "git": commit(Path.cwd()),
        "packages": installed,
    }


@cache
def packages() -> dict[str, str]:
    """Returns the version of every installed distribution, by name."""
    found = {str(each.metadata["Name"]).lower().replace("_", "-"): each.version for each in distributions()}
    return dict(sorted(found.items()))


def commit(folder: Path) -> dict[str, Any] | None:
    """Returns the commit of the repository that a folder is in, and whether no tracked file differs from it.

    None where there is no repository, no commit, or no git.
    """

    def asked(*words: str) -> str:
        command = ["git", "-C", str(folder), "--no-optional-locks", *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE).stdout.strip()

    try:
        return {"commit": asked("rev-parse", "HEAD"), "clean": not asked("status", "--porcelain", "-uno")}
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None


def differing_environment(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Returns what differs between two environments, in a line each, with both values."""
    compared = [name for name in dict.fromkeys([*one, *other]) if name not in ELSEWHERE]
    # An older version wrote the main packages alone.
    whole = all(part.get("packages") for part in (one, other))
    before, after = ({name: part.get(name) for name in MAIN} | _mapping(part.get("packages")) for part in (one, other))
    found = [(name, one.get(name), other.get(name)) for name in compared]
    found += [(name, before.get(name), after.get(name)) for name in (sorted({*before, *after}) if whole else MAIN)]
    return [f"{name}: {_written(was)} → {_written(is_now)}" for name, was, is_now in found if was != is_now]


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _written(value: Any) -> str:
    if isinstance(value, Mapping) and {"commit", "clean"} <= value.keys():
        return f"{str(value['commit'])[:12]}{'' if value['clean'] else ' with changes'}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {entry}" for name, entry in value.items())
    return "none" if value is None else str(value)[:200]
