"""Differences of metrics from a baseline, with confidence intervals where several seeds pair the runs."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import UsageError
from ..runs import short_names, shown
from .metrics import describe
from .significance import LEVEL, rejected, without_spread
from .table import SAME_FOR_ALL_SEEDS, main_metrics

__all__ = ["CONFIDENCE", "MARKED", "differences", "differences_table"]

CONFIDENCE = 0.95
MARK = "*"
MARKED = (
    f"{MARK} Differs, by a paired t-test. Of all tests of the table together, the level is {LEVEL} (Holm's correction)."
)


def differences(table: pd.DataFrame, keys: Sequence[str], baseline: str) -> pd.DataFrame:
    """Returns by how much the main metrics of runs are above those of a baseline.

    Runs of the same seed are paired, since they share the order of their data; a seed that only one of both has is left
    out. The interval is that of Student's t for the mean of the paired differences, and missing for a single seed. It
    says how training varies, not how another test set would.

    Args:
        table: a `metrics_table`.
        keys: the options in which its runs differ.
        baseline: a group of runs that differ only in their seed: the value that only its runs have of one of the keys
            (`conv`), a key with its value (`latent_dim=2`), several of these with commas, or a run's name.

    Returns:
        A row for each other group and each metric: `group`, `metric`, `difference`, `low` and `high`, the ends of the
        interval, `seeds`, their number, `p`, that of a paired t-test, and `differs`, whether it is small enough by
        Holm's correction for all of these tests. A single seed has no test, and a group that shares no seed with the
        baseline no difference.

    Raises:
        UsageError: if no group or several are meant.
    """
    finished = table[table["status"] == "finished"]
    others = [key for key in keys if key != "seed"]
    labels = _labels(finished, others)
    meant = _meant(finished, labels, others, baseline)
    found = []
    for group in labels.drop_duplicates():
        if group == meant:
            continue
        for metric in main_metrics(finished):
            if metric in SAME_FOR_ALL_SEEDS:
                continue
            one, other = (_by_seed(finished[labels == label], metric, "seed" in keys) for label in (group, meant))
            if one.isna().all() or other.isna().all():
                continue
            one, other = one.dropna().align(other.dropna(), join="inner")
            found.append((group, metric, *_paired(one.to_numpy(float), other.to_numpy(float))))
    rows = pd.DataFrame(found, columns=["group", "metric", "difference", "low", "high", "seeds", "p"])
    small = iter(rejected(rows["p"].dropna().tolist()))
    rows["differs"] = [tested and next(small) for tested in rows["p"].notna()]
    return rows.astype({"differs": bool})


def _paired(one: np.ndarray, other: np.ndarray) -> tuple[float, float, float, int, float]:
    """The mean difference, the ends of its interval, the number of pairs, and the p-value of a paired t-test."""
    apart = one - other
    mean, half, p = apart.mean() if len(apart) else np.nan, np.nan, np.nan
    if len(apart) > 1:
        student, error = stats.t(len(apart) - 1), float(stats.sem(apart))
        half = student.ppf((1 + CONFIDENCE) / 2) * error
        if not without_spread(apart, one, other):
            p = float(2 * student.sf(abs(mean) / error))
    return mean, mean - half, mean + half, len(apart), p


def differences_table(found: pd.DataFrame) -> pd.DataFrame:
    """Returns differences as text, a row for each group: difference ± half the interval, marked if it `differs`."""
    rows: dict[str, dict[str, str]] = {}
    for entry in found.to_dict("records"):
        row = rows.setdefault(entry["group"], {"runs": entry["group"], "seeds": str(entry["seeds"])})
        metric = describe(entry["metric"])
        digits = max(metric.digits, 1) if entry["seeds"] > 1 else metric.digits
        row[metric.label] = f"{entry['difference']:+z,.{digits}f}" if entry["seeds"] else ""
        if entry["seeds"] > 1:
            row[metric.label] += f" ± {(entry['high'] - entry['low']) / 2:,.{digits}f}"
        row[metric.label] += f" {MARK}" * entry["differs"]
    return pd.DataFrame(rows.values()).fillna("")


def _labels(runs: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """What tells each run from those that differ in more than the seed; the name where no option does."""
    if not keys:
        return runs["run"]
    names = short_names(keys)
    return runs.apply(lambda row: ", ".join(f"{names[key]}={shown(row[key])}" for key in keys), axis=1)


def _meant(runs: pd.DataFrame, labels: pd.Series, keys: Sequence[str], baseline: str) -> str:
    """The label of the group that a baseline names."""
    asked, names = {_compact(part) for part in re.split(r",(?![^\[]*\])", baseline)}, short_names(keys)
    found = []
    for row in runs.index:
        values = {key: shown(runs.loc[row, key]) for key in keys}
        known = {str(runs.loc[row, "run"]), *values.values()}
        known |= {f"{name}={value}" for key, value in values.items() for name in (key, names[key])}
        if {_compact(name) for name in known} >= asked:
            found.append(labels[row])
    if len(set(found)) != 1:
        several = "several groups are" if found else "no group is"
        among = "; ".join(dict.fromkeys(found or labels))
        raise UsageError(f"baseline={baseline}: {several} called that, of {among}"[:1000])
    return str(found[0])


def _compact(text: str) -> str:
    return text.replace(" ", "")


def _by_seed(runs: pd.DataFrame, metric: str, paired: bool) -> pd.Series:
    """A metric of the runs of a group by their seed; of several of the same seed, the mean."""
    return runs.groupby("seed")[metric].mean() if paired else pd.Series([runs[metric].mean()])
