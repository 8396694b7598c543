"""The runs of a comparison by what they differ in apart from the seed, as the page shows them.

Its table, the sentence above that, and the data of its charts.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from ..runs import different, short_names, shown
from .metrics import METRICS, describe
from .table import SAME_FOR_ALL_SEEDS, mark, repeated, spread

__all__ = ["Group", "Groups"]


class Group(NamedTuple):
    """Finished runs that differ in nothing but the seed.

    Attributes:
        labels: their values of the keys that tell groups apart, or a single one that names them.
        rows: of the `metrics_table`.
        tested: what they are tested on, images and likelihood.
    """

    labels: list[str]
    rows: pd.DataFrame
    tested: tuple[str, str]


class Groups:
    """The groups of a comparison.

    Args:
        table: a `metrics_table`.
        keys: the options in which its runs differ.
        tested: what each run is tested on: the digest of the images and the likelihood. Elbos of others are not
            comparable.
    """

    def __init__(self, table: pd.DataFrame, keys: Sequence[str], tested: Sequence[tuple[str, str]]) -> None:
        finished = table[table["status"] == "finished"] if len(table) else table
        finished = finished.fillna({key: shown(None) for key in keys if key in finished})
        others = [key for key in keys if key != "seed"]
        if "seed" in keys and len(finished) > 1:
            by_label = finished.groupby(others or "status", sort=False)
            labelled = [([shown(rows.iloc[0][key]) for key in others] or ["all seeds"], rows) for _, rows in by_label]
            self.keys = others
        else:
            labelled = [
                ([shown(row[key]) for key in keys] or [str(row["run"])], finished.loc[[index]])
                for index, row in finished.iterrows()
            ]
            self.keys = list(keys)
        self.groups = [Group(labels, rows, tested[rows.index[0]]) for labels, rows in labelled]
        self.metrics = _metrics(table, keys)
        self._options = _numbers(table, [key for key in keys if key != "seed"])

    @property
    def heads(self) -> list[str]:
        """The short names of the keys that tell groups apart."""
        names = short_names(self.keys)
        return [names[key] for key in self.keys]

    @property
    def seeds(self) -> bool:
        """Whether any group has runs of several seeds."""
        return any(len(group.rows) > 1 for group in self.groups)

    @property
    def different(self) -> str:
        """What differs between what the groups are tested on."""
        return different([group.tested for group in self.groups])

    @cached_property
    def kinds(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of the table by the kind of model; if there is only one, its name is empty.

        A cell has a text, the value to sort by, and whether it is the best of its kind: of the same data, in nats also
        of the same likelihood.
        """
        kinds: dict[str, list[dict[str, Any]]] = {}
        for group in self.groups:
            cells = [_cell(name, group.rows) for name in self.metrics]
            row = {"labels": group.labels, "count": len(group.rows), "cells": cells, "tested": group.tested}
            kinds.setdefault(group.rows["kind"].iloc[0] if "kind" in group.rows else "", []).append(row)
        for rows in kinds.values():
            _mark_best(self.metrics, rows)
        return kinds

    @property
    def columns(self) -> list[Any]:
        """The descriptions of the table's metrics."""
        return [describe(name) for name in self.metrics]

    @property
    def sentence(self) -> str:
        """The result: the best group by the test elbo against the worst, if they can be compared."""
        if not self.groups:
            return "No run has finished."
        groups = [group for group in self.groups if "test/elbo" in group.rows and group.rows["test/elbo"].notna().all()]
        if not groups:
            return "None of the models has a bound of log p(x)."
        if apart := different([group.tested for group in groups]):
            return (
                f"The test elbos are of different {apart}, so they are not ranked; the table marks the best of "
                "those that can be compared."
            )
        best, *others = sorted(groups, key=lambda group: -group.rows["test/elbo"].mean())
        seeds = f", mean ± standard deviation over {len(best.rows)} seeds" if len(best.rows) > 1 else ""
        if not others:
            return f"The test elbo is {_elbo(best)} nats per image{seeds}."
        worst = others[-1]
        gap = best.rows["test/elbo"].mean() - worst.rows["test/elbo"].mean()
        return (
            f"The best test elbo is that of {self._name(best.labels)}: {_elbo(best)} nats per image{seeds}, "
            f"{gap:.1f} above that of {self._name(worst.labels)}, {_elbo(worst)}."
        )

    def charts(self) -> list[dict[str, Any]]:
        """The means and spreads of each group's metrics, for charts over each other and over the latent dimension."""
        found = []
        for labels, rows, _ in self.groups:
            metrics = {key: [float(rows[key].iloc[0]), 0.0] for key in _numbers(rows, self.keys)}
            for name in self.metrics:
                mean, deviation = rows[name].mean(), rows[name].std()
                if math.isfinite(mean):
                    metrics[name] = [float(mean), float(deviation) if math.isfinite(deviation) else 0.0]
            dimensions = rows.get("latent_dim", pd.Series()).dropna().unique()
            found.append(
                {
                    "label": self._name(labels),
                    "name": ", ".join(labels),
                    "labels": labels,
                    "latent_dim": int(dimensions[0]) if len(dimensions) == 1 else None,
                    "metrics": metrics,
                }
            )
        return found

    def axes(self) -> list[tuple[str, str, str]]:
        """The name, label and unit of all that one axis of a chart can show: options with numbers, and metrics."""
        names = short_names(self._options)
        metrics = [(name, describe(name)) for name in self.metrics if name not in self._options]
        return [(key, names[key], "") for key in self._options] + [
            (name, metric.label, metric.unit) for name, metric in metrics
        ]

    def _name(self, labels: Sequence[str]) -> str:
        """The keys and values of a group, or its label if that is not the value of a key."""
        return ", ".join(f"{head} = {label}" for head, label in zip(self.heads, labels, strict=False)) or labels[0]


def _metrics(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The metrics of a `metrics_table`, not its options: known ones first, in the order of their descriptions."""
    hidden = repeated(table)
    numeric = [
        str(name)
        for name in table.columns
        if pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any() and str(name) not in hidden
    ]
    known = [name for name in METRICS if name in numeric]
    return known + [name for name in numeric if name not in {*METRICS, *keys, "latent_dim", "seed"}]


def _numbers(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys that have numbers."""
    return [key for key in keys if key in table and pd.api.types.is_numeric_dtype(table[key])]


def _elbo(group: Group) -> str:
    return spread(group.rows["test/elbo"], describe("test/elbo")).replace("-", "−")


def _cell(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    metric, values = describe(name), rows[name]
    mean = values.mean()
    if not math.isfinite(mean):
        return {"text": "", "value": None, "best": False}
    text = metric.write(mean) if name in SAME_FOR_ALL_SEEDS else spread(values, metric)
    return {"text": text.replace("-", "−") + mark(rows, name), "value": float(mean), "best": False}


def _mark_best(metrics: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    for position, name in enumerate(metrics):
        metric, comparable = describe(name), defaultdict[Any, list[dict[str, Any]]](list)
        for row in rows:
            if row["cells"][position]["value"] is not None:
                comparable[row["tested"][: 2 if metric.unit == "nats" else 1]].append(row["cells"][position])
        for cells in comparable.values():
            values = {cell["value"] for cell in cells}
            if metric.better and len(values) > 1:
                best = max(values) if metric.better > 0 else min(values)
                for cell in cells:
                    cell["best"] = cell["value"] == best
