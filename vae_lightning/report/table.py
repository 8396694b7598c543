"""A sweep's metrics as a table: a row for each run, and means over seeds where seeds were swept."""

from collections.abc import Sequence

import pandas as pd

from ..runs import Run, short_names

__all__ = ["metrics_table", "print_table"]

# What the console shows, in this order; the CSV has everything.
SHOWN = {
    "test/elbo": ("elbo", 2),
    "test/distortion": ("distortion", 2),
    "test/rate": ("rate", 2),
    "test/loss": ("loss", 2),
    "val/elbo": ("val elbo", 2),
    "seconds_training": ("seconds", 1),
    "images_per_second": ("images/s", 0),
    "parameters": ("parameters", 0),
    "epochs": ("epochs", 0),
}
SAME_FOR_ALL_SEEDS = {"parameters", "epochs"}


def metrics_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """A row for each run: `run`, `status`, a column for each swept key, by its whole name, and every metric."""
    rows = []
    for run in runs:
        row = {"run": run.name, "status": "finished" if run.finished else run.failure}
        if run.config_file.is_file():
            row |= {key: str(run.option(key)) for key in keys}
        rows.append(row | (run.metrics if run.finished else {}))
    return pd.DataFrame(rows)


def print_table(table: pd.DataFrame, keys: Sequence[str]) -> None:
    """Prints the finished runs of a `metrics_table`, per image in nats, and their means over seeds."""
    finished = table[table["status"] == "finished"]
    names = short_names(keys)
    columns = [name for name in SHOWN if name in finished]
    runs = finished[list(keys)].rename(columns=names) if keys else finished[["run"]].copy()
    for name in columns:
        title, digits = SHOWN[name]
        runs[title] = finished[name].map(lambda value, digits=digits: f"{value:,.{digits}f}")
    print(runs.to_string(index=False))
    if "seed" in keys and len(finished) > 1:
        print("\nmean ± standard deviation over seeds\n")
        others = [key for key in keys if key != "seed"]
        groups = finished.groupby(others or "status", sort=False)
        means = pd.DataFrame({"seeds": groups.size()})
        for name in (name for name in columns if name not in SAME_FOR_ALL_SEEDS):
            title, digits = SHOWN[name]
            means[title] = [_spread(values, digits) for _, values in groups[name]]
        means = means.rename_axis([names[key] for key in others]) if others else means
        print(means.reset_index(drop=not others).to_string(index=False))


def _spread(values: pd.Series, digits: int) -> str:
    mean = f"{values.mean():,.{digits}f}"
    return f"{mean} ± {values.std():,.{digits}f}" if len(values) > 1 else mean
