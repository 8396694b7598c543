"""A sweep in one picture: learning curves of all runs, and the runs' own pictures side by side."""

import io
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torchvision.transforms.functional import pil_to_tensor

from .. import plots
from ..runs import Run, short_names, shown, write_file
from .files import FIGURES, read_arrays, read_picture

__all__ = ["comparison_picture", "keep_curves", "learning_curves", "run_label", "sweep_title"]

CURVES = 60  # runs; of more, evenly spaced ones are drawn
SIDE_BY_SIDE = 6  # runs; of more than that, evenly spaced ones are drawn
GRIDS = 4  # from each run's training
LEGEND = 12  # runs named in the legend of the curves
TERMS = {"train/loss": "loss", "train/distortion": "distortion", "train/rate": "rate"}

Curves = dict[str, tuple[list[int], list[float]]]


def comparison_picture(runs: Sequence[Run], keys: Sequence[str], file: Path) -> bool:
    """Draws finished runs, which differ in the swept keys, to a PNG file.

    Returns:
        Whether there was anything to draw: runs without loggers and callbacks leave nothing.
    """
    curves = {run_label(run, keys): learning_curves(run) for run in plots.evenly_spaced(runs, CURVES)}
    shown = _side_by_side(runs, keys)
    arrays = {run: found for run in shown if (found := read_arrays(run.arrays_file, FIGURES))}
    width = {1: 6.6, 2: 5.6, 3: 4.6}.get(len(shown), 4.0)
    rows = [
        (2.9 + 0.17 * -(-min(len(curves), LEGEND) // 3), any(curves.values()), None),
        (width / GRIDS + 0.75, any(run.grids() for run in shown), _draw_grids),
        (2 * width / 11 + 0.3, bool(arrays), _draw_reconstructions),
        (width * 0.8 + 0.3, bool(arrays), _draw_means),
    ]
    rows = [row for row in rows if row[1]]
    if not rows:
        return False
    heights = [height for height, *_ in rows]
    with plots.style():
        layout = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.06)
        figure = Figure(figsize=(max(width * len(shown), 9), sum(heights) + 0.5), layout=layout)
        figure.suptitle(sweep_title(runs, keys), x=0.012, ha="left", fontsize=13)
        bands = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).flat
        for band, (_, _, draw) in zip(bands, rows, strict=True):
            if draw is None:
                _draw_curves(band, curves)
                continue
            for cell, run in zip(band.subfigures(1, len(shown), squeeze=False).flat, shown, strict=True):
                draw(cell, run, arrays.get(run), run_label(run, keys))
        if arrays:
            classes = max((list(map(str, found["class_names"])) for found in arrays.values()), key=len)
            handles, names = plots.class_handles(classes)
            figure.legend(handles, names, loc="outside lower center", ncols=len(names), handletextpad=0.2)
        FigureCanvasAgg(figure).print_figure(str(file))
    return True


def learning_curves(run: Run) -> Curves:
    """Optimizer steps and values of the training terms, by name; empty where nothing was logged.

    A finished run keeps them in a file of their own: TensorBoard's reader takes long over events with pictures.
    """
    if kept := read_arrays(run.curves_file, {}):
        return {name: (kept[f"{name}_steps"].tolist(), kept[name].tolist()) for name in kept if f"{name}_steps" in kept}
    return _from_events(run)


def _from_events(run: Run) -> Curves:
    if not run.tensorboard.is_dir():
        return {}
    events = EventAccumulator(str(run.tensorboard), size_guidance={"scalars": 0, "images": 1})
    events.Reload()
    curves: Curves = {}
    for tag, name in TERMS.items():
        if tag in events.Tags()["scalars"]:
            scalars = events.Scalars(tag)
            curves[name] = [event.step for event in scalars], [event.value for event in scalars]
    return curves


def keep_curves(run: Run) -> None:
    """Writes the curves of a run's events to the file from which `learning_curves` reads them faster."""
    arrays: dict[str, Any] = {}
    for name, (steps, values) in _from_events(run).items():
        arrays |= {name: np.array(values), f"{name}_steps": np.array(steps)}
    if arrays:
        run.figures.mkdir(exist_ok=True)
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        write_file(run.curves_file, content.getvalue())


def _side_by_side(runs: Sequence[Run], keys: Sequence[str]) -> list[Run]:
    """The runs that are drawn beside each other: those of the first seed, if that leaves more than one."""
    one_seed = [run for run in runs if run.option("seed") == runs[0].option("seed")]
    return plots.evenly_spaced(one_seed if len(runs) > SIDE_BY_SIDE and len(one_seed) > 1 else runs, SIDE_BY_SIDE)


def sweep_title(runs: Sequence[Run], keys: Sequence[str]) -> str:
    """What finished runs differ in, their data and epochs."""
    names = short_names(keys)
    swept = [f"{names[key]} {', '.join(dict.fromkeys(shown(run.option(key)) for run in runs))}" for key in keys]
    swept = [textwrap.shorten(text, 60, placeholder=" …") for text in swept]
    data = ", ".join(dict.fromkeys(str(run.option("data.name")) for run in runs))
    epochs = ", ".join(dict.fromkeys(str(run.metrics["epochs"]) for run in runs))
    return "  ·  ".join([*(swept or [runs[0].name]), data, f"{epochs} epoch{'' if epochs == '1' else 's'}"])


def run_label(run: Run, keys: Sequence[str]) -> str:
    """What tells a run apart: the swept keys and its values of them."""
    names = short_names(keys)
    return ", ".join(f"{names[key]} = {shown(run.option(key))}" for key in keys) or run.name


def _draw_curves(figure: SubFigure, curves: dict[str, Curves]) -> None:
    panels = figure.subplots(1, len(TERMS))
    for axes, term in zip(panels, TERMS.values(), strict=True):
        plots.curves(axes, {label: c[term] for label, c in curves.items() if term in c}, f"{term}, nats per image")
    if len(curves) <= LEGEND:
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=min(3, len(curves)))


def _draw_grids(figure: SubFigure, run: Run, arrays: dict[str, np.ndarray] | None, label: str) -> None:
    elbo, distortion, rate = (run.metrics[f"test/{name}"] for name in ("elbo", "distortion", "rate"))
    terms = f"elbo −{-elbo:.1f} = −(distortion {distortion:.1f} + rate {rate:.1f})"
    figure.suptitle(f"{textwrap.shorten(label, 60)}\n{terms}", x=0.02, ha="left", fontsize=9)
    files = run.grids()
    chosen = plots.evenly_spaced(list(files), GRIDS)
    for axes, step in zip(figure.subplots(1, GRIDS, squeeze=False).flat, [*chosen, *[None] * GRIDS], strict=False):
        axes.set_axis_off()
        if step is not None:
            if picture := read_picture(files[step]):
                plots.draw_picture(axes, pil_to_tensor(picture))
            axes.set_title(f"step {step}", fontsize=8, color=plots.QUIET, pad=3)


def _draw_reconstructions(figure: SubFigure, run: Run, arrays: dict[str, np.ndarray] | None, label: str) -> None:
    if arrays is not None:
        rows = [torch.from_numpy(arrays[name][:10]).float() / 255 for name in ("originals", "reconstructions")]
        plots.labelled_tiles(figure.subplots(), rows, ["test image", "reconstructed"])


def _draw_means(figure: SubFigure, run: Run, arrays: dict[str, np.ndarray] | None, label: str) -> None:
    if arrays is None:
        return
    axes = figure.subplots()
    plots.draw_scatter(axes, torch.from_numpy(arrays["points"]), torch.from_numpy(arrays["labels"]))
    plane = f", {arrays['explained'].sum():.0%} of their variance" if len(arrays["rates"]) > 2 else ""
    axes.set_title(f"posterior means of test images{plane}", fontsize=8, color=plots.QUIET, pad=3)
