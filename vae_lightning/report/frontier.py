"""What a weight of the rate buys: the frontier of rate and distortion, and the area under it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from scipy.integrate import trapezoid

from .. import plots
from ..runs import short_names, shown

__all__ = ["Frontier", "draw_frontiers", "frontier_table", "frontiers", "mean_distortion", "reached"]

WEIGHT = "model.objective.beta"
FEWEST = 3  # weights of a frontier
RATE, DISTORTION = "test/rate", "test/distortion"


@dataclass(frozen=True)
class Frontier:
    """Models that differ only in how much the rate weighs.

    Attributes:
        group: what else they are, such as "latent_dim 2"; empty if nothing else differs between the runs.
        points: by weight, the columns `rate` and `distortion`, means over seeds, in nats per image.
        low: the smallest rate of the area, which all frontiers that are compared have reached.
        high: its largest rate, the largest of all frontiers; beyond its own largest rate a frontier goes on at its
            smallest distortion.
        levels: the area divided by its width, the mean distortion over these rates, in nats, for each seed.

    Source: Alemi et al. (2018), *Fixing a Broken ELBO*, https://arxiv.org/abs/1711.00464.
    """

    group: str
    points: pd.DataFrame
    low: float
    high: float
    levels: tuple[float, ...]

    @property
    def level(self) -> str:
        """The mean distortion as text, with its standard deviation over seeds."""
        mean = f"{np.mean(self.levels):.1f}"
        return f"{mean} ± {np.std(self.levels, ddof=1):.1f}" if len(self.levels) > 1 else mean


def frontiers(table: pd.DataFrame, keys: Sequence[str]) -> list[Frontier]:
    """Returns the frontiers of finished runs in a `metrics_table`, one for each group that differs in nothing else.

    A seed that lacks a weight of its group is left out of the area. There are no frontiers where the weight β of an
    objective does not differ, or has fewer than three values.
    """
    if WEIGHT not in keys or not {RATE, DISTORTION} <= set(table):
        return []
    others = [key for key in keys if key not in (WEIGHT, "seed")]
    names = short_names(keys)
    known = table[table[[RATE, DISTORTION, WEIGHT]].notna().all(axis=1)].copy()
    known[others] = known[others].fillna(shown(None))
    known[WEIGHT] = known[WEIGHT].astype(float)
    if "seed" not in keys:
        known["seed"] = 0
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    points: dict[str, pd.DataFrame] = {}
    for values, rows in known.groupby(others) if others else [((), known)]:
        weights = rows[WEIGHT].nunique()
        seeds = [found for _, found in rows.groupby("seed") if found[WEIGHT].nunique() == weights]
        if weights < FEWEST or not seeds:
            continue
        group = ", ".join(f"{names[key]} {shown(value)}" for key, value in zip(others, values, strict=True))
        curves[group] = [reached(found[RATE].to_numpy(), found[DISTORTION].to_numpy()) for found in seeds]
        points[group] = rows.groupby(WEIGHT)[[RATE, DISTORTION]].mean().set_axis(["rate", "distortion"], axis=1)
    of_all = [curve for found in curves.values() for curve in found]
    if not of_all:
        return []
    low, high = max(rates[0] for rates, _ in of_all), max(rates[-1] for rates, _ in of_all)
    return [
        Frontier(group, points[group], low, high, tuple(mean_distortion(*curve, low, high) for curve in found))
        for group, found in curves.items()
    ]


def reached(rates: np.ndarray, distortions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns rates, rising, and distortions, falling: of the points `(N,)` those that no other beats in both."""
    order = np.lexsort((distortions, rates))
    rates, distortions = rates[order], distortions[order]
    best = distortions < np.minimum.accumulate(np.append(np.inf, distortions))[:-1]
    return rates[best], distortions[best]


def mean_distortion(rates: np.ndarray, distortions: np.ndarray, low: float, high: float) -> float:
    """Returns the area under a frontier, straight between its points and flat after the last, over its width.

    Args:
        rates: rising `(N,)`.
        distortions: falling `(N,)`.
        low: where the area begins, at least the first rate.
        high: where it ends.
    """
    if high <= low:
        return float(np.interp(low, rates, distortions))
    at = np.unique(np.concatenate([[low, high], rates[(rates > low) & (rates < high)]]))
    return float(trapezoid(np.interp(at, rates, distortions), at) / (high - low))


def frontier_table(found: Sequence[Frontier]) -> pd.DataFrame:
    """Returns frontiers as text: the weights, the rates and distortions that they reach, and the mean distortion."""
    return pd.DataFrame(
        {
            **({"runs": [frontier.group for frontier in found]} if any(frontier.group for frontier in found) else {}),
            "β": [", ".join(f"{weight:g}" for weight in frontier.points.index) for frontier in found],
            "rate": [_range(frontier.points["rate"]) for frontier in found],
            "distortion": [_range(frontier.points["distortion"]) for frontier in found],
            f"mean distortion at rates {found[0].low:.1f} to {found[0].high:.1f}": [
                frontier.level for frontier in found
            ],
        }
    )


def _range(values: pd.Series) -> str:
    return f"{values.min():.1f} to {values.max():.1f}"


def _name_weights(axes: Axes, found: Sequence[Frontier]) -> None:
    """Writes weights beside their points, the outer ones first, where they do not run into others."""
    taken: list[tuple[float, float]] = []
    for frontier in found:
        points = frontier.points
        for weight in sorted(points.index, key=lambda weight: -abs(np.log(max(weight, 1e-9)))):
            at = points["rate"][weight], points["distortion"][weight]
            x, y = axes.transData.transform(at)
            if all(abs(x - other) > 34 or abs(y - above) > 18 for other, above in taken):
                taken.append((x, y))
                text = axes.annotate(f"{weight:g}", at, (5, 4), textcoords="offset points")
                text.set(fontsize=7, color=plots.QUIET)


def draw_frontiers(found: Sequence[Frontier], file: Path) -> None:
    """Draws distortion over rate to a PNG file, with the line of the best elbo and every model of the elbo itself."""
    with plots.style():
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        axes = figure.add_subplot()
        for frontier, colour in zip(found, plots.PALETTE * (len(found) // len(plots.PALETTE) + 1), strict=False):
            points = frontier.points.sort_values("rate")
            axes.plot(
                points["rate"], points["distortion"], color=colour, marker="o", markersize=3.5, label=frontier.group
            )
        every = pd.concat([frontier.points for frontier in found])
        if 1 in every.index:
            axes.plot(
                *every.loc[[1]].to_numpy().T, "o", markersize=9, markerfacecolor="none", color=plots.QUIET,
                label="β = 1, trained for the elbo",
            )  # fmt: skip
        best = (every["rate"] + every["distortion"]).min()
        low, high = axes.get_ylim()
        rates = np.array([best - high, best - low]).clip(0)
        label = f"elbo {-best:.1f}, the best".replace("-", "−")
        axes.plot(rates, best - rates, "--", color=plots.QUIET, linewidth=0.8, zorder=0, label=label)
        axes.set_ylim(low, high)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _name_weights(axes, found)
        axes.set(xlabel="rate, nats per image", ylabel="distortion, nats per image", title="Rate and distortion, by β")
        axes.legend()
        Image.fromarray(plots.rendered(figure)).save(file, compress_level=plots.COMPRESSION)
