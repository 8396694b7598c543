"""The metrics of runs as tables: a row for each run, and means over seeds where seeds differ."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..runs import Run, run_names, short_names, shown
from .metrics import CONSOLE, Metric, describe

__all__ = ["SAME_FOR_ALL_SEEDS", "mean_table", "metrics_table", "run_table", "spread"]

SAME_FOR_ALL_SEEDS = {"parameters", "epochs"}


def metrics_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """Returns a row for each run: `run`, `status`, a column for each key that differs, and one for each metric."""
    options = {key: _column([run.option(key) for run in runs]) for key in keys}
    rows = []
    for position, (run, name) in enumerate(run_names(runs).items()):
        row: dict[str, Any] = {"run": name, "status": "finished" if run.finished else run.failure}
        row |= {key: values[position] for key, values in options.items()}
        rows.append(row | (run.metrics if run.finished else {}))
    return pd.DataFrame(rows)


def _column(values: list[Any]) -> list[Any]:
    """Numbers where all values are; otherwise text, or None for an option that a run does not have."""
    if all(type(value) in (int, float) for value in values):
        return values
    return [None if value is None else str(value) for value in values]


def run_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Returns the finished runs of a `metrics_table` as text: what differs, and the main metrics."""
    finished = table[table["status"] == "finished"]
    columns = list(keys) or ["run"]
    names = short_names(columns)
    runs = finished[columns].map(shown).rename(columns=names)
    for name, metric in _main_metrics(finished).items():
        runs[metric.label] = ["" if pd.isna(value) else metric.write(value) for value in finished[name]]
    return runs


def mean_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame | None:
    """Returns means and standard deviations over seeds as text, a row for each group that differs in nothing else.

    None where the seed does not differ.
    """
    finished = table[table["status"] == "finished"]
    if "seed" not in keys or len(finished) < 2:
        return None
    others = [key for key in keys if key != "seed"]
    groups = finished.fillna({key: shown(None) for key in others}).groupby(others or "status", sort=False)
    means = pd.DataFrame({"seeds": groups.size()})
    for name, metric in _main_metrics(finished).items():
        if name not in SAME_FOR_ALL_SEEDS:
            means[metric.label] = [spread(values, metric) for _, values in groups[name]]
    names = short_names(others)
    means = means.rename_axis([names[key] for key in others]) if others else means
    return means.reset_index(drop=not others)


def _main_metrics(table: pd.DataFrame) -> dict[str, Metric]:
    return {name: describe(name) for name in CONSOLE if name in table}


def spread(values: pd.Series, metric: Metric) -> str:
    """Returns mean ± standard deviation of a metric over seeds; of a single one, its value."""
    mean = metric.write(values.mean()) if values.count() else ""
    return f"{mean} ± {values.std():,.{max(metric.digits, 1)}f}" if values.count() > 1 else mean
