"""The metrics of runs as tables: a row for each run, and means over seeds where seeds differ."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ..runs import Run, run_names, short_names, shown
from .metrics import AGAINST, CONSOLE, EVALUATED, Metric, describe

__all__ = [
    "SAME_FOR_ALL_SEEDS", "STANDARD_ERROR", "against_table", "evaluation_table", "main_metrics",
    "mark", "mean_table", "metrics_table", "notes_on", "repeated", "run_table", "spread",
]  # fmt: skip

SAME_FOR_ALL_SEEDS = {"parameters", "epochs"}
OF_EVALUATIONS = ("test/elbo", "test/iw_bound")  # on the console of a comparison
BOUND = "test/iw_bound"
SETTLED = 0.1  # nats
RISING = "↑"
NOTHING = 0.1  # nats of rate, below which codes tell next to nothing
FEW = 0.5  # of the dimensions
NAMED = 3  # runs in a note
EXPLANATION = (
    f"{RISING} This bound still rises with its samples, by more than {SETTLED} nats when they were last doubled. The "
    "more latent dimensions a model uses, the more is missing: vae-evaluate RUN --bound-samples 5000 brings it closer "
    "to log p(x)."
)
IN_SHORT = (
    "test/elbo", "test/iw_bound", "test/annealed_bound", "test/annealed_gap", "test/distortion", "test/rate",
    "test/mse", "test/active_units", "test/knn_accuracy", "test/frechet_samples", "test/precision", "test/recall",
    "test/density", "test/coverage",
)  # fmt: skip
BETWEEN = (
    "Pixels between 0 and 1 under a Bernoulli likelihood: what is called a bound of log p(x) is one of minus a cross "
    "entropy. It compares such models of the same data, and nothing else."
)
FLOOR = "test/distortion_above_floor"
ROUNDING = 0.01  # nats
STANDARD_ERROR = "± standard error over test images; a 95 % interval is about twice that to either side."


def metrics_table(runs: Sequence[Run], keys: Sequence[str]) -> pd.DataFrame:
    """Returns a row for each run: `run`, `status`, a column for each key that differs, and one for each metric.

    If the runs are of several kinds, there is a column `kind`. Metrics of the runs' evaluations are named
    `evaluations/<evaluation>/<metric>`.
    """
    options = {key: _column(key, runs) for key in keys}
    kinds = [run.option("kind") or "" for run in runs]
    rows = []
    for position, (run, name) in enumerate(run_names(runs).items()):
        row: dict[str, Any] = {"run": name, "status": "finished" if run.finished else run.failure}
        row |= {"kind": kinds[position]} if len(set(kinds)) > 1 else {}
        row |= dict.fromkeys(keys)
        rows.append(row | (run.metrics if run.finished else {}) | _evaluated(run))
    return pd.DataFrame(rows).assign(**options)


def _evaluated(run: Run) -> dict[str, float]:
    return {
        f"{EVALUATED}{evaluation}/{name}": value
        for evaluation, metrics in run.evaluations.items()
        for name, value in metrics.items()
    }


def repeated(table: pd.DataFrame) -> set[str]:
    """Returns the metrics of evaluations that only repeat what was measured at the end of the runs."""
    found = set()
    for name in map(str, table.columns):
        metric = name.removeprefix(EVALUATED).partition("/")[2]
        if name.startswith(EVALUATED) and metric in table:
            known = table[table[name].notna()]
            if (known[name] == known[metric]).all():
                found.add(name)
    return found


def evaluation_table(metrics: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Returns the main metrics of an evaluation as text, with their standard errors, a row for each run.

    Args:
        metrics: by the runs' names.
    """
    rows = []
    for run, found in metrics.items():
        row: dict[str, str] = {"run": run}
        for name in IN_SHORT:
            if name in found:
                metric, error = describe(name), found.get(f"{name}_stderr")
                row[metric.label] = metric.write(found[name])
                row[metric.label] += "" if error is None else f" ± {metric.write(error)}"
                row[metric.label] += mark(pd.DataFrame([found]), name)
        rows.append(row)
    return pd.DataFrame(rows).fillna("")


def against_table(metrics: Mapping[str, Mapping[str, float]]) -> pd.DataFrame | None:
    """Returns how well runs tell other data as text, a row for each run and other data; None where none were measured.

    Args:
        metrics: by the runs' names.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for run, found in metrics.items():
        for name, value in found.items():
            score, against, other = name.partition(AGAINST)
            if against:
                row = rows.setdefault((run, other), {"run": run, "against": other})
                row[describe(score).label] = describe(score).write(value)
    return pd.DataFrame([*rows.values()]).fillna("") if rows else None


def _column(key: str, runs: Sequence[Run]) -> Any:
    """An option of the runs: numbers where all that are known are, otherwise text.

    Missing in a failed run, which may have no configuration; None for an option that a run does not have.
    """
    values = [run.option(key) for run in runs]
    known = [value for value, run in zip(values, runs, strict=True) if run.finished or value is not None]
    if known and all(type(value) in (int, float) for value in known):
        return values if len(known) == len(values) else pd.array(values)
    return [None if value is None else str(value) for value in values]


def run_table(table: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Returns the finished runs of a `metrics_table` as text: what differs, and the main metrics."""
    finished = table[table["status"] == "finished"]
    columns = list(keys) or ["run"]
    names = short_names(columns)
    runs = finished[columns].map(shown).rename(columns=names)
    for name, metric in main_metrics(finished).items():
        runs[metric.label] = [
            "" if pd.isna(value) else metric.write(value) + mark(finished.iloc[[row]], name)
            for row, value in enumerate(finished[name])
        ]
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
    for name, metric in main_metrics(finished).items():
        if name not in SAME_FOR_ALL_SEEDS:
            means[metric.label] = [spread(rows[name], metric) + mark(rows, name) for _, rows in groups]
    names = short_names(others)
    means = means.rename_axis([names[key] for key in others]) if others else means
    return means.reset_index(drop=not others)


def main_metrics(table: pd.DataFrame) -> dict[str, Metric]:
    """Returns the metrics of a `metrics_table` that fit on a console, by name, and those of evaluations."""
    evaluations = dict.fromkeys(
        f"{EVALUATED}{name.split('/')[1]}/{metric}"
        for name in map(str, table.columns)
        if name.startswith(EVALUATED)
        for metric in OF_EVALUATIONS
    )
    hidden = repeated(table)
    return {name: describe(name) for name in [*CONSOLE, *evaluations] if name in table and name not in hidden}


def mark(rows: pd.DataFrame, name: str) -> str:
    """Returns what is added to a bound of rows of a `metrics_table` that still rises in any of them; else nothing.

    It has risen by more than `SETTLED` nats, and its standard error, when its samples were doubled.
    """
    rise, error = f"{name}_rise", f"{name}_rise_stderr"
    if not name.endswith(BOUND) or rise not in rows or error not in rows:
        return ""
    rising = (rows[rise] > SETTLED) & (rows[rise] > rows[error])
    return f" {RISING}" if rising.any() else ""


def notes_on(table: pd.DataFrame) -> list[str]:
    """Returns what a `metrics_table` must be read with.

    The explanations of its marks, and sentences on Bernoulli likelihoods of pixels between 0 and 1 and on posteriors
    that have collapsed.
    """
    names = [str(name) for name in table.columns if str(name).endswith(BOUND)]
    marks = [EXPLANATION] if any(mark(table, name) for name in names) else []
    return [*marks, *([BETWEEN] if _of_pixels_between(table) else []), *_collapsed(table)]


def _of_pixels_between(table: pd.DataFrame) -> bool:
    """Whether the likelihood of any run is a Bernoulli distribution and its pixels are not all 0 or 1."""
    if not {"test/distortion", FLOOR} <= set(table):
        return False
    return bool((table["test/distortion"] - table[FLOOR] > ROUNDING).any())


def _collapsed(table: pd.DataFrame) -> list[str]:
    """A sentence each on runs whose posterior is the prior, or another for all images, or uses less than half of it.

    Not of codebooks, which have no noise, nor of models without a rate, whose codes have no scale.
    """
    if not {"run", "latent_dim", "test/active_units", "test/rate"} <= set(table):
        return []
    noisy = table[table["test/code_perplexity"].isna()] if "test/code_perplexity" in table else table
    active, rate = noisy["test/active_units"], noisy["test/rate"]
    unused = rate < NOTHING
    same = (active == 0) & (rate >= NOTHING)
    few = rate.notna() & (active < FEW * noisy["latent_dim"]) & ~unused & ~same
    found = []
    if unused.any():
        found.append(
            f"The posterior has collapsed to the prior: the codes of {_used(noisy[unused])} tell next to nothing of "
            "the images."
        )
    if same.any():
        found.append(
            f"The posterior is nearly the same for all images, but not the prior: the codes of {_used(noisy[same])} "
            "tell next to nothing of the images."
        )
    if few.any():
        found.append(
            f"Less than half of the latent dimensions are used by {_used(noisy[few])}; in the others the posterior is "
            "nearly the same for all images."
        )
    return found


def _used(rows: pd.DataFrame) -> str:
    """The names of runs, of many some, with what each uses of its latent space."""
    named = [
        f"{row['run']} ({row['test/active_units']:.0f} of {row['latent_dim']:.0f} active, rate "
        f"{describe('test/rate').write(row['test/rate'])} nats)"
        for _, row in rows.head(NAMED).iterrows()
    ]
    more = len(rows) - len(named)
    return ", ".join(named) + (f" and {more} more" if more else "")


def spread(values: pd.Series, metric: Metric) -> str:
    """Returns mean ± standard deviation of a metric over seeds; of a single one, its value."""
    if values.count() > 1:
        finer = metric._replace(digits=max(metric.digits, 1))
        return f"{finer.write(values.mean())} ± {values.std():,.{finer.digits}f}"
    return metric.write(values.mean()) if values.count() else ""
