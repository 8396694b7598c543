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
    "seconds_training": ("seconds", 1),
    "images_per_second": ("images/s", 0),
    "parameters": ("parameters", 0),
    "epochs": ("epochs", 0),
}


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
    others = [key for key in keys if key != "seed"]
    if "seed" in keys and others:
        print("\nmean ± standard deviation over seeds\n")
        groups = finished.groupby(others, sort=False)
        means = pd.DataFrame({"seeds": groups.size()})
        for name in columns:
            title, digits = SHOWN[name]
            mean, deviation = groups[name].mean(), groups[name].std()
            means[title] = [f"{m:,.{digits}f} ± {s:,.{digits}f}" for m, s in zip(mean, deviation, strict=True)]
        print(means.rename_axis([names[key] for key in others]).reset_index().to_string(index=False))
