"""A run on disk: layout, names, files that are whole or not there, safe loading, resuming."""

from .files import forget_paths, read_hydra, write_file, write_json
from .names import plain_cell, run_name, short_names, short_path, shown
from .run import Run
from .sweep import sweep_overrides, sweep_runs, swept_keys

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
