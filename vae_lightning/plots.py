"""Figures: tensors in, matplotlib figures out. Nothing here touches files, loggers or matplotlib's global state.

Grey values are always shown on the fixed scale from 0 (black) to 1 (white), so that brightness can be compared
between pictures. Images with three channels are shown in colour; other channels are no colours, and are shown below
each other.
"""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

import matplotlib
import numpy as np
import torch
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torchvision.utils import make_grid

__all__ = [
    "PALETTE",
    "bound",
    "class_handles",
    "curves",
    "draw_picture",
    "draw_scatter",
    "drawable",
    "evenly_spaced",
    "far_outside",
    "grey_values",
    "labelled_tiles",
    "latent_scatter",
    "lattice",
    "pairs",
    "progress",
    "rendered",
    "style",
    "tile",
    "tiles",
    "traversals",
]

# Ten hues that most colour-blind readers can tell apart on white, in the order of the classes.
PALETTE = (
    "#4477aa", "#ee6677", "#228833", "#ccaa22", "#66ccee",
    "#aa3377", "#999999", "#ee8833", "#332288", "#44bb99",
)  # fmt: skip
T = TypeVar("T")

INK = "#222222"
QUIET = "#777777"


def style() -> AbstractContextManager[None]:
    """Returns a context with the settings that all figures share; figures are drawn and saved inside it."""
    return matplotlib.rc_context(
        {
            "font.size": 9,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.titlepad": 8,
            "axes.labelsize": 9,
            "axes.labelcolor": INK,
            "axes.edgecolor": QUIET,
            "axes.linewidth": 0.7,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "axes.prop_cycle": cycler(color=PALETTE),
            "xtick.color": QUIET,
            "ytick.color": QUIET,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "text.color": INK,
            "text.parse_math": False,  # names of data, classes and runs may have dollar signs
            "legend.frameon": False,
            "legend.fontsize": 8,
            "lines.linewidth": 1.4,
            "figure.dpi": 150,
            "savefig.dpi": 150,
            "figure.titlesize": 12,
        }
    )


COMPRESSION = 4  # of PNG files: a tenth larger than at the usual level 6, in half the time


def rendered(figure: Figure) -> np.ndarray:
    """Returns the pixels of a figure `(H, W, 3)`, uint8, which is laid out and drawn once."""
    canvas = FigureCanvasAgg(figure)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # of names in other scripts
        canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def drawable(images: Tensor) -> Tensor:
    """Returns images `(…, C, H, W)` in grey or in colour; other channels than 1 or 3 are below each other in grey."""
    return images if images.shape[-3] in (1, 3) else images.flatten(-3, -2).unsqueeze(-3)


def grey_values(images: Tensor) -> Tensor:
    """Returns images in [0, 1] as uint8 on the CPU; values outside are clamped."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def tile(images: Tensor, columns: int) -> Tensor:
    """Returns one picture `(3, H', W')` of images `(N, C, H, W)` in [0, 1], in rows of `columns` with thin gaps."""
    images = drawable(images)
    gap = max(1, max(images.shape[-2:]) // 32)
    return make_grid(images, nrow=columns, padding=gap, pad_value=0.35).clamp(0, 1)


def tiles(images: Tensor, columns: int, title: str) -> Figure:
    """Returns a figure of images `(N, C, H, W)` in rows of `columns`."""
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(6, 6 * _aspect(images) * rows / columns + 0.4), layout="constrained")
    axes = figure.add_subplot()
    draw_picture(axes, tile(images, columns))
    axes.set_title(title)
    return figure


def progress(grids: Mapping[int, Tensor], title: str, columns: int = 4) -> Figure:
    """Returns a figure of pictures of samples `(C, H, W)`, uint8, by the optimizer step after which they were drawn."""
    columns = min(columns, len(grids))
    rows = -(-len(grids) // columns)
    height = 2.3 * max(map(_aspect, grids.values())) + 0.15
    figure = Figure(figsize=(max(2.3 * columns, 6), height * rows + 0.4), layout="constrained")
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in cells:
        axes.set_axis_off()
    for axes, (step, grid) in zip(cells, grids.items(), strict=False):
        draw_picture(axes, grid)
        axes.set_title(f"step {step}", fontsize=8, color=QUIET, loc="center", pad=3)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def draw_picture(axes: Axes, picture: Tensor) -> None:
    """Draws a picture `(C, H, W)`, uint8 or in [0, 1], into axes without ticks or frame."""
    _show(axes, picture.permute(1, 2, 0).cpu().numpy())
    axes.set_axis_off()


def _show(axes: Axes, picture: np.ndarray) -> None:
    """Draws a picture `(H, W, C)` with its own pixels, unless it has far more than there is room for."""
    room = axes.get_window_extent().width  # a little less than there is once the figure has been laid out
    axes.imshow(picture, interpolation="nearest" if picture.shape[1] < 1.7 * room else "antialiased")


def _aspect(images: Tensor) -> float:
    """Height over width of images `(…, C, H, W)` as they are drawn."""
    height, width = drawable(images).shape[-2:]
    return height / width


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """Returns at most `count` items, evenly spaced from first to last, like R's `seq(1, n, length.out = count)`."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]


def draw_scatter(axes: Axes, points: Tensor, labels: Tensor | None = None, limit: float | None = None) -> None:
    """Draws points `(N, 1)` or `(N, 2)`, of equal aspect, into axes.

    Args:
        axes: where to.
        points: `(N, 2)`; or `(N, 1)`, which are drawn in a band for each class, the first one on top.
        labels: classes `(N,)`, one colour each; without them all points have the same colour.
        limit: axes go from −limit to limit; without it, as far as the points do.
    """
    if labels is None:
        labels = torch.zeros(len(points), dtype=torch.int64)
    size = float(np.clip(12_000 / max(len(points), 1), 4, 14))
    # In random order, so that no class covers the others; the order is the same every time.
    order = np.random.default_rng(0).permutation(len(points))
    colours = np.array([matplotlib.colors.to_rgba(PALETTE[c % len(PALETTE)], 0.75) for c in labels.tolist()])
    if points.shape[1] == 1:
        bands = labels.cpu().numpy() + np.random.default_rng(1).uniform(-0.3, 0.3, len(points))
        x, y = points[:, 0].cpu().numpy(), bands
        axes.invert_yaxis()
        axes.set_yticks([])
    else:
        x, y = points.cpu().numpy().T
        axes.set_aspect("equal", adjustable="box" if limit else "datalim")
    axes.scatter(x[order], y[order], s=size, c=colours[order], linewidths=0, rasterized=True)
    if limit and points.shape[1] > 1:
        axes.set(xlim=(-limit, limit), ylim=(-limit, limit))


def class_handles(class_names: Sequence[str]) -> tuple[list[Line2D], list[str]]:
    """Returns dots in the classes' colours, and their names, for a legend of a `draw_scatter`."""
    colours = [PALETTE[label % len(PALETTE)] for label in range(len(class_names))]
    return [Line2D([], [], color=c, marker="o", markersize=5, linestyle="") for c in colours], list(class_names)


def latent_scatter(
    points: Tensor,
    labels: Tensor | None,
    class_names: Sequence[str],
    title: str,
    axis_labels: tuple[str, str] = ("z₁", "z₂"),
    limit: float | None = None,
) -> Figure:
    """Returns a scatter of points `(N, 1)` or `(N, 2)` with a legend of class names, if any; see `draw_scatter`."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = figure.add_subplot()
    draw_scatter(axes, points, labels, limit)
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title)
    if labels is not None and len(class_names):
        figure.legend(*class_handles(class_names), loc="outside right center", handletextpad=0.2)
    return figure


def lattice(images: Tensor, coordinates: Tensor, title: str, axis_labels: tuple[str, str] = ("z₁", "z₂")) -> Figure:
    """Returns a figure of images `(R, S, C, H, W)` decoded at a lattice, with its coordinates `(R, S, 2)` as axes."""
    figure = Figure(figsize=(6, 5.4 * _aspect(images) * len(images) / images.shape[1] + 0.8), layout="constrained")
    axes = figure.add_subplot()
    labelled_tiles(axes, list(images), _sparse_labels(coordinates[:, 0, 1]), _sparse_labels(coordinates[0, :, 0]))
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], title=title)
    return figure


def _sparse_labels(values: Tensor, most: int = 10) -> list[str]:
    shown = evenly_spaced(range(len(values)), most)
    return [f"{value:.2f}" if i in shown else "" for i, value in enumerate(values.tolist())]


def pairs(rows: Mapping[str, Tensor], title: str, captions: Sequence[str] = (), columns: int = 10) -> Figure:
    """Returns a figure of images `(N, C, H, W)`, each above the one of the next row that it belongs to.

    Args:
        rows: originals and reconstructions, say, by what stands to the left of them.
        title: of the figure.
        captions: what stands under each pair, if anything.
        columns: number of pairs beside each other.
    """
    blocks = list(zip(*(images.split(columns) for images in rows.values()), strict=True))
    height = 1.4 * _aspect(blocks[0][0]) + (0.2 if captions else 0.1)
    figure = Figure(figsize=(7, height * len(blocks) + 0.5), layout="constrained")
    for number, axes in enumerate(figure.subplots(len(blocks), 1, squeeze=False).flat):
        labelled_tiles(axes, blocks[number], list(rows), captions[number * columns : (number + 1) * columns])
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def labelled_tiles(
    axes: Axes, rows: Sequence[Tensor], row_labels: Sequence[str], column_labels: Sequence[str] = ()
) -> None:
    """Draws rows of images, each `(N, C, H, W)`, with a label to the left of each row and under each column."""
    picture = np.concatenate([tile(row, len(row)).cpu().numpy() for row in rows], axis=1)
    _show(axes, picture.transpose(1, 2, 0))
    height, width = picture.shape[1] / len(rows), picture.shape[2] / len(rows[0])
    axes.set_yticks([(i + 0.5) * height for i in range(len(row_labels))], row_labels)
    axes.set_xticks([(i + 0.5) * width for i in range(len(column_labels))], column_labels)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def traversals(images: Tensor, labels: Sequence[str], values: Sequence[float], title: str) -> Figure:
    """Returns a figure of images `(R, S, C, H, W)`: a row for each label, a column for each value, if there are any."""
    rows, columns = images.shape[:2]
    figure = Figure(figsize=(0.62 * columns + 1.3, 0.62 * _aspect(images) * rows + 0.9), layout="constrained")
    axes = figure.add_subplot()
    labelled_tiles(axes, list(images), labels, [f"{round(value, 1) + 0.0:+.1f}" for value in values])
    axes.set_title(title)
    return figure


def bound(samples: Tensor, values: Tensor, gap_errors: Tensor, title: str) -> Figure:
    """Returns a figure of a bound over the number of samples that it is estimated with, and with which it rises.

    Args:
        samples: numbers of samples `(counts,)`.
        values: the bounds, in nats, `(counts,)`.
        gap_errors: standard errors of their differences from the last one `(counts,)`, which are drawn: that of the
            level, which all share, is larger than what is to be seen.
        title: of the figure.
    """
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    axes = figure.add_subplot()
    axes.errorbar(samples, values, gap_errors, marker="o", markersize=3, capsize=2)
    axes.set_xscale("log")
    axes.set_xticks(samples.tolist(), [f"{count:,}" for count in samples.tolist()], fontsize=7)
    axes.minorticks_off()
    axes.set(xlabel="samples for each image", ylabel="bound of log p(x), nats", title=title)
    return figure


def far_outside(series: Sequence[Sequence[float]]) -> set[int]:
    """Returns the numbers of series, none of which is empty, that reach far from where most are.

    Far is more than twenty interquartile ranges of all values from their quartiles. Of fewer than five series none is
    far, since two of three may be what is compared, and none if half of them are.

    >>> far_outside([[1, 2], [2, 3], [3, 4], [4, 5], [5, 1e6]])
    {4}
    """
    lower, upper = np.quantile(np.concatenate(series), [0.25, 0.75]) if series else (0.0, 0.0)
    far = 20 * (upper - lower)
    outside = {n for n, values in enumerate(series) if min(values) < lower - far or max(values) > upper + far}
    return outside if len(series) >= 5 and 2 * len(outside) < len(series) else set()


def curves(axes: Axes, series: Mapping[str, tuple[Sequence[float], Sequence[float]]], title: str) -> None:
    """Draws lines of (steps, values) by name into axes, single points as dots.

    The range of values leaves out the first tenth of the steps, and of many lines those that are far from most (see
    `far_outside`), which would hide the rest. The title says how many these are.
    """
    for number, (name, (steps, values)) in enumerate(series.items()):
        marker = "o" if np.isfinite(values).sum() == 1 else ""
        axes.plot(steps, values, label=name, color=PALETTE[number % len(PALETTE)], marker=marker, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(every := {step for steps, _ in series.values() for step in steps}) == 1:
        axes.set_xlim(min(every) - 1, max(every) + 1)
    settled = [[v for v in values[len(values) // 10 :] if np.isfinite(v)] for _, values in series.values()]
    settled = [values for values in settled if values]
    outside = far_outside(settled)
    if seen := [v for number, values in enumerate(settled) if number not in outside for v in values]:
        low, high = min(seen), max(seen)
        margin = 0.06 * (high - low or abs(high) or 1)
        axes.set_ylim(low - margin, high + margin)
    axes.set_title(f"{title} ({len(outside)} outside)" if outside else title)
    axes.set_xlabel("optimizer step")
