"""Runs on disk: layout, names, atomic files, safe loading, resuming."""

from .atomic import forget_paths, read_hydra, write_file, write_json
from .claiming import claimed, is_claimed, state_of
from .finding import folders_of_runs
from .names import plain_cell, run_labels, run_name, run_names, short_names, short_path, shown
from .options import differing_options
from .ranking import best_first, different, score, scored_by, tested_on
from .run import VERSION, Run
from .sweep import is_search, sweep_overrides, sweep_runs, swept_keys
from .where import matching

__all__ = [
    "VERSION",
    "Run",
    "best_first",
    "claimed",
    "different",
    "differing_options",
    "folders_of_runs",
    "forget_paths",
    "is_claimed",
    "is_search",
    "matching",
    "plain_cell",
    "read_hydra",
    "run_labels",
    "run_name",
    "run_names",
    "score",
    "scored_by",
    "short_names",
    "short_path",
    "shown",
    "state_of",
    "sweep_overrides",
    "sweep_runs",
    "swept_keys",
    "tested_on",
    "write_file",
    "write_json",
]
