"""A sweep's metrics as a table: a row for each run, and means over seeds where seeds were swept."""

from collections.abc import Sequence

import pandas as pd

from ..runs import Run, short_names, shown
from .metrics import CONSOLE, Metric, describe

__all__ = ["metrics_table", "print_table", "spread"]

PRINTED = 60  # runs
SAME_FOR_ALL_SEEDS = {"parameters", "epochs"}


def metrics_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """A row for each run: `run`, `status`, a column for each swept key, by its whole name, and every metric."""
    rows = []
    for run in runs:
        row = {"run": run.name, "status": "finished" if run.finished else run.failure}
        row |= {key: str(value) for key in keys if (value := run.option(key)) is not None}
        rows.append(row | (run.metrics if run.finished else {}))
    return pd.DataFrame(rows)


def print_table(table: pd.DataFrame, keys: Sequence[str]) -> None:
    """Prints the finished runs of a `metrics_table`, per image in nats, and their means over seeds."""
    finished = table[table["status"] == "finished"]
    names = short_names(keys)
    columns = {name: describe(name) for name in CONSOLE if name in finished}
    runs = finished[list(keys)].map(shown).rename(columns=names) if keys else finished[["run"]].copy()
    for name, metric in columns.items():
        runs[metric.label] = finished[name].map(
            lambda value, metric=metric: "" if pd.isna(value) else metric.write(value)
        )
    print(runs.head(PRINTED).to_string(index=False))
    if len(runs) > PRINTED:
        print(f"… and {len(runs) - PRINTED} more in metrics.csv")
    if "seed" in keys and len(finished) > 1:
        print("\nmean ± standard deviation over seeds\n")
        others = [key for key in keys if key != "seed"]
        groups = finished.groupby(others or "status", sort=False)
        means = pd.DataFrame({"seeds": groups.size()})
        for name, metric in columns.items():
            if name not in SAME_FOR_ALL_SEEDS:
                means[metric.label] = [spread(values, metric) for _, values in groups[name]]
        means = means.rename_axis([names[key] for key in others]) if others else means
        print(means.reset_index(drop=not others).to_string(index=False))


def spread(values: pd.Series, metric: Metric) -> str:
    """Mean ± standard deviation of a metric over seeds; of a single one, its value."""
    mean = metric.write(values.mean())
    return f"{mean} ± {values.std():,.{max(metric.digits, 1)}f}" if values.count() > 1 else mean
