"""Atomic writing of a run's files, and reading of YAML as plain data."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

__all__ = ["forget_paths", "load_yaml", "read_hydra", "write_file", "write_json"]


def load_yaml(file: Path) -> Any:
    """Returns a YAML file as plain data, with the C parser if available; tags never create objects."""
    return yaml.load(file.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def read_hydra(file: Path) -> Mapping[str, Any]:
    """Returns the `hydra` node of a file written by Hydra; empty if it is missing or damaged."""
    try:
        found = load_yaml(file)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    node = found.get("hydra") if isinstance(found, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def forget_paths(file: Path) -> None:
    """Removes the user's folders, which no run depends on, from a file written by Hydra."""
    hydra = read_hydra(file)
    runtime = hydra.get("runtime")
    if not isinstance(runtime, dict):
        return
    kept = {key: value for key, value in runtime.items() if key not in ("cwd", "config_sources", "output_dir")}
    write_file(file, yaml.safe_dump({"hydra": {**hydra, "runtime": kept}}, sort_keys=False).encode())


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file atomically."""
    write_file(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Writes a file atomically; on an error the previous file remains.

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
