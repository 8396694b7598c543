"""A sweep in one picture: learning curves of all runs, and the runs' own pictures side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.transforms.functional import pil_to_tensor

from .. import plots
from ..runs import Run, short_names

__all__ = ["comparison_picture", "learning_curves"]

SIDE_BY_SIDE = 6  # runs; of more than that, evenly spaced ones are drawn
GRIDS = 4  # from each run's training
LEGEND = 12  # runs named in the legend of the curves
TERMS = {"train/loss": "loss", "train/distortion": "distortion", "train/rate": "rate"}


def comparison_picture(runs: Sequence[Run], keys: Sequence[str], file: Path) -> None:
    """Draws finished runs, which differ in the swept keys, to a PNG file."""
    shown = plots.evenly_spaced(runs, SIDE_BY_SIDE)
    labels = {run: _label(run, keys) for run in runs}
    arrays = {run: np.load(run.arrays_file) if run.arrays_file.is_file() else None for run in shown}
    width = {1: 6.6, 2: 5.6, 3: 4.4}.get(len(shown), 3.6)
    heights = [2.9, width / GRIDS + 0.5, 2 * width / 11 + 0.3, width * 0.8 + 0.3]
    with plots.style():
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
        figure = Figure(figsize=(max(width * len(shown), 8), sum(heights) + 0.5), layout=layout)
        top, *rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        figure.suptitle(_title(runs, keys), x=0.012, ha="left", fontsize=13)
        _draw_curves(top, {labels[run]: learning_curves(run) for run in runs})
        for row, draw in zip(rows, (_draw_grids, _draw_reconstructions, _draw_means), strict=True):
            cells = np.atleast_1d(row.subfigures(1, len(shown)))
            for cell, run in zip(cells, shown, strict=True):
                draw(cell, run, arrays[run], labels[run])
        classes = [[str(name) for name in a["class_names"]] for a in arrays.values() if a is not None]
        if classes:
            handles, names = plots.class_handles(max(classes, key=len))
            figure.legend(handles, names, loc="outside lower center", ncols=len(names), handletextpad=0.2)
        FigureCanvasAgg(figure).print_figure(str(file))


def learning_curves(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    """Steps and values of the training terms, by name, from the run's TensorBoard events; empty without them."""
    if not run.tensorboard.is_dir():
        return {}
    events = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    return {
        name: ([event.step for event in events.Scalars(tag)], [event.value for event in events.Scalars(tag)])
        for tag, name in TERMS.items()
        if tag in events.Tags()["scalars"]
    }


def _title(runs: Sequence[Run], keys: Sequence[str]) -> str:
    names = short_names(keys)
    swept = [f"{names[key]} {', '.join(dict.fromkeys(str(run.option(key)) for run in runs))}" for key in keys]
    data = ", ".join(dict.fromkeys(str(run.option("data.name")) for run in runs))
    epochs = ", ".join(dict.fromkeys(str(run.metrics["epochs"]) for run in runs))
    return "  ·  ".join([*(swept or [runs[0].name]), data, f"{epochs} epochs"])


def _label(run: Run, keys: Sequence[str]) -> str:
    names = short_names(keys)
    return ", ".join(f"{names[key]} = {run.option(key)}" for key in keys) or run.name


def _draw_curves(figure: SubFigure, curves: dict[str, dict[str, tuple[list[int], list[float]]]]) -> None:
    for axes, term in zip(figure.subplots(1, len(TERMS)), TERMS.values(), strict=True):
        plots.curves(axes, {label: c[term] for label, c in curves.items() if term in c}, f"{term}, nats per image")
    if any(curves.values()) and len(curves) <= LEGEND:
        axes.legend(loc="best")


def _draw_grids(figure: SubFigure, run: Run, arrays: np.lib.npyio.NpzFile | None, label: str) -> None:
    test = {name: run.metrics[f"test/{name}"] for name in ("elbo", "distortion", "rate")}
    terms = f"elbo {test['elbo']:.1f} = −(distortion {test['distortion']:.1f} + rate {test['rate']:.1f})"
    figure.suptitle(f"{label}:  {terms}", x=0.02, ha="left", fontsize=10)
    files = run.grids()
    chosen = plots.evenly_spaced(list(files), GRIDS)
    for axes, step in zip(figure.subplots(1, max(len(chosen), 1), squeeze=False).flat, chosen, strict=False):
        plots.draw_picture(axes, pil_to_tensor(Image.open(files[step])))
        axes.set_title(f"samples, step {step}", fontsize=8, color=plots.QUIET, pad=3)


def _draw_reconstructions(figure: SubFigure, run: Run, arrays: np.lib.npyio.NpzFile | None, label: str) -> None:
    if arrays is not None:
        rows = [torch.from_numpy(arrays[name][:10]).float() / 255 for name in ("originals", "reconstructions")]
        plots.labelled_tiles(figure.subplots(), rows, ["test image", "reconstructed"])


def _draw_means(figure: SubFigure, run: Run, arrays: np.lib.npyio.NpzFile | None, label: str) -> None:
    if arrays is None:
        return
    axes = figure.subplots()
    dimensions = len(arrays["rates"])
    plots.draw_scatter(axes, torch.from_numpy(arrays["points"]), torch.from_numpy(arrays["labels"]))
    plane = f", {arrays['explained'].sum():.0%} of the variance" if dimensions > 2 else ""
    axes.set_title(f"posterior means of test images{plane}", fontsize=8, color=plots.QUIET, pad=3)
