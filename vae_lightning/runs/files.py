"""Files of a run that are there whole or not at all, and YAML read as plain data."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

__all__ = ["forget_paths", "load_yaml", "read_hydra", "write_file", "write_json"]


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
