"""All runs in one figure: their learning curves, and their own figures side by side."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from .. import plots
from ..runs import Run, run_labels, run_names, short_names, shown
from .curves import Curves, learning_curves, terms
from .files import Arrays, is_exact, read_figures, read_picture
from .metrics import describe

__all__ = ["comparison_picture", "sweep_title"]

CURVES = 60  # runs; of more, evenly spaced ones are drawn
SIDE_BY_SIDE = 6  # runs; of more, evenly spaced ones are drawn
TERMS = 6  # panels of curves
GRIDS = 4  # from each run's training
LEGEND = 12  # runs named in the legend of the curves
LONGEST = 100  # characters of a label, beyond which runs have their names instead
CHARACTER = 0.0082  # inches of width, on average, for each point of the font's size


class _Column(NamedTuple):
    """A run that is drawn beside others."""

    run: Run
    label: str
    grids: dict[int, Path]
    arrays: Arrays | None


def comparison_picture(runs: Sequence[Run], keys: Sequence[str], file: Path) -> bool:
    """Draws finished runs to a PNG file.

    Args:
        runs: the runs.
        keys: the options in which they differ.
        file: to be written.

    Returns:
        Whether there was anything to draw: runs without callbacks leave no figures.
    """
    labels = _labels(runs, keys)
    beside = _side_by_side(runs)
    width = {1: 6.6, 2: 5.6, 3: 4.6}.get(len(beside), 4.0)
    full = max(width * len(beside), 9)
    of_legend = {run: _wrapped(label, full - 0.3, 8) for run, label in labels.items()}
    curves = {of_legend[run]: found for run in plots.evenly_spaced(runs, CURVES) if (found := learning_curves(run))}
    names = terms(curves.values())[:TERMS]
    columns = [
        _Column(run, _wrapped(labels[run], full / len(beside), 9), run.grids(), read_figures(run)) for run in beside
    ]
    arrays = [column.arrays for column in columns if column.arrays]
    bands: list[tuple[float, Callable[[SubFigure, _Column], None]]] = []
    if any(column.grids for column in columns) or arrays:
        bands.append((0.4 + 0.14 * max(column.label.count("\n") for column in columns), _draw_title))
    if any(column.grids for column in columns):
        bands.append((width / GRIDS + 0.25, _draw_grids))
    if arrays:
        bands += [(2 * width / 11 + 0.3, _draw_reconstructions), (width * 0.8 + 0.3, _draw_codes)]
    heights = [height for height, _ in bands]
    across = _legend_columns(list(curves), full)
    if names:
        heights.insert(0, 2.7 * _rows(len(names)) + 0.17 * -(-min(len(curves), LEGEND) // across))
    if not heights:
        return False
    with plots.style():
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
        title = _wrapped(sweep_title(runs, keys), full, 13)
        figure = Figure(figsize=(full, sum(heights) + 0.5 + 0.2 * title.count("\n")), layout=layout)
        figure.suptitle(title, x=0.012, ha="left", fontsize=13)
        parts = list(figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat)
        if names:
            _draw_curves(parts.pop(0), curves, names, across)
        for part, (_, draw) in zip(parts, bands, strict=True):
            for cell, column in zip(part.subfigures(1, len(columns), squeeze=False).flat, columns, strict=True):
                draw(cell, column)
        classes = max((list(map(str, found.get("class_names", ()))) for found in arrays), key=len, default=[])
        if classes:
            handles, class_names = plots.class_handles(classes)
            figure.legend(handles, class_names, loc="outside lower center", ncols=len(classes), handletextpad=0.2)
        Image.fromarray(plots.rendered(figure)).save(file, compress_level=plots.COMPRESSION)
    return True


def _labels(runs: Sequence[Run], keys: Sequence[str]) -> dict[Run, str]:
    """What tells runs apart: the options in which they differ, or, where these are many, the runs' names."""
    labels = run_labels(runs, keys)
    return labels if all(len(label) <= LONGEST for label in labels.values()) else run_names(runs)


def _wrapped(text: str, width: float, size: float) -> str:
    """Text in lines that are no wider than so many inches, at a size in points."""
    return textwrap.fill(text, int((width - 0.3) / (size * CHARACTER)))


def _side_by_side(runs: Sequence[Run]) -> list[Run]:
    """The runs that are drawn beside each other: those of the first seed, if that leaves more than one."""
    one_seed = [run for run in runs if run.option("seed") == runs[0].option("seed")]
    return plots.evenly_spaced(one_seed if len(runs) > SIDE_BY_SIDE and len(one_seed) > 1 else runs, SIDE_BY_SIDE)


def sweep_title(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """Returns one line with what finished runs differ in, their data and epochs."""
    names = {key: name for key, name in short_names(keys).items() if name not in ("data", "max_epochs")}
    swept = [
        f"{name} {', '.join(dict.fromkeys(shown(run.option(key)) for run in runs))}" for key, name in names.items()
    ]
    swept = [textwrap.shorten(text, 60, placeholder=" …") for text in swept]
    data = ", ".join(dict.fromkeys(str(run.option("data.name")) for run in runs))
    epochs = ", ".join(dict.fromkeys(str(run.metrics["epochs"]) for run in runs))
    return "  ·  ".join([*(swept or [runs[0].name]), data, f"{epochs} epoch{'' if epochs == '1' else 's'}"])


def _rows(panels: int) -> int:
    return 1 if panels <= 3 else 2


def _legend_columns(labels: Sequence[str], width: float) -> int:
    """At most three, if the labels and their lines fit side by side into so many inches."""
    longest = max(map(len, labels), default=0) * 8 * CHARACTER + 0.6
    return max(1, min(3, len(labels), int(width / longest)))


def _draw_curves(figure: SubFigure, curves: Mapping[str, Curves], names: Sequence[str], across: int) -> None:
    rows = _rows(len(names))
    panels = list(figure.subplots(rows, -(-len(names) // rows), squeeze=False).flat)
    for axes, name in zip(panels, names, strict=False):
        metric = describe(f"test/{name}")
        unit = f", {metric.unit} per image" if metric.unit else ""
        # A run without the term has an empty line, so that each run has the same colour in all panels.
        plots.curves(axes, {label: found.get(name, ([], [])) for label, found in curves.items()}, metric.label + unit)
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    if len(curves) <= LEGEND:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=across)


def _draw_title(figure: SubFigure, column: _Column) -> None:
    elbo, distortion, rate = (column.run.metrics.get(f"test/{name}") for name in ("elbo", "distortion", "rate"))
    if elbo is None or rate is None:
        terms = f"distortion {distortion:.1f}, no bound"
    else:
        terms = f"elbo {elbo:.1f} = −(distortion {distortion:.1f} + rate {rate:.1f})".replace("-", "−")
    figure.suptitle(f"{column.label}\n{terms}", x=0.02, y=0.95, va="top", ha="left", fontsize=9)


def _draw_grids(figure: SubFigure, column: _Column) -> None:
    chosen = plots.evenly_spaced(list(column.grids), GRIDS)
    cells = list(figure.subplots(1, GRIDS, squeeze=False).flat)
    for axes in cells:
        axes.set_axis_off()
    for axes, step in zip(cells, chosen, strict=False):
        if picture := read_picture(column.grids[step]):
            plots.draw_picture(axes, pil_to_tensor(picture))
        axes.set_title(f"step {step}", fontsize=8, color=plots.QUIET, pad=3)
    if not chosen:
        _say(figure, "no samples were drawn during training")


def _draw_reconstructions(figure: SubFigure, column: _Column) -> None:
    if column.arrays is None:
        _say(figure, "no figures")
        return
    rows = [torch.from_numpy(column.arrays[name][:10]).float() / 255 for name in ("originals", "reconstructions")]
    plots.labelled_tiles(figure.subplots(), rows, ["test image", "reconstructed"])


def _draw_codes(figure: SubFigure, column: _Column) -> None:
    arrays = column.arrays
    if arrays is None:
        return
    axes = figure.subplots()
    labels = torch.from_numpy(arrays["labels"]) if "labels" in arrays else None
    plots.draw_scatter(axes, torch.from_numpy(arrays["points"]), labels)
    exact = is_exact(arrays, len(arrays["rates"]))
    plane = "" if exact else f", {arrays['explained'].sum():.0%} of their variance"
    axes.set_title(f"codes of test images{plane}", fontsize=8, color=plots.QUIET, pad=3)


def _say(figure: SubFigure, text: str) -> None:
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=8, color=plots.QUIET)
