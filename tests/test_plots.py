"""Figures say what is in their tensors."""

import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vae_lightning import plots
from vae_lightning.callbacks.tensorboard_views import _sprites
from vae_lightning.generate.image_files import write_gif


def test_evenly_spaced_is_the_chapters_choice() -> None:
    # R: round(seq(1, 27, length.out = 16))
    chosen = plots.evenly_spaced(range(1, 28), 16)
    assert (chosen[0], chosen[-1], len(chosen)) == (1, 27, 16)
    assert {b - a for a, b in pairwise(chosen)} == {1, 2}
    assert plots.evenly_spaced([3, 4], 16) == [3, 4]
    assert plots.evenly_spaced([], 4) == []


def test_grey_values_are_not_rescaled() -> None:
    dim = torch.full((4, 1, 2, 2), 0.25)
    assert plots.tile(dim, 2)[:, 1:3, 1:3].unique().tolist() == [0.25]
    axes = Figure().add_subplot()
    plots.draw_picture(axes, plots.tile(dim, 2))
    assert axes.images[0].to_rgba(axes.images[0].get_array())[1, 1, 0] == 0.25


@pytest.mark.parametrize("channels", [2, 4])
def test_channels_that_are_no_colours_are_below_each_other_in_grey(channels: int, tmp_path: Path) -> None:
    images = torch.rand(3, channels, 5, 6)
    below = images.reshape(3, 1, channels * 5, 6)
    assert torch.equal(plots.tile(images, 3), plots.tile(below, 3))
    one, other = (plots.rendered(plots.tiles(given, 3, "title")) for given in (images, below))
    assert np.array_equal(one, other)
    write_gif((images * 255).to(torch.uint8), tmp_path / "animation.gif", "images")
    with Image.open(tmp_path / "animation.gif") as animation:
        assert animation.size[1] * 6 == animation.size[0] * channels * 5
    sprites = _sprites(images)
    assert sprites.shape == (3, 3, channels * 5, channels * 5)
    assert torch.equal(sprites[:, 0], sprites[:, 2])


def test_names_are_drawn_as_they_are() -> None:
    """With dollar signs, which matplotlib would take for mathematics, and in scripts that its font lacks."""
    names = ["$\\bad_{$", "猫"]
    with plots.style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = plots.latent_scatter(torch.randn(4, 2), torch.arange(4) % 2, names, "about $x_{1 and $y")
        plots.rendered(figure)
        plots.rendered(plots.traversals(torch.rand(2, 3, 1, 4, 4), names, (), "title"))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_lattice_has_the_second_coordinate_upwards() -> None:
    codes = torch.tensor([[[-1.0, 2.0], [1.0, 2.0]], [[-1.0, -2.0], [1.0, -2.0]]])
    axes = plots.lattice(torch.rand(2, 2, 1, 4, 4), codes, "title").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["-1.00", "1.00"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["2.00", "-2.00"]
    (top, bottom) = axes.get_yticks()
    assert top < bottom  # image rows count downwards
    assert axes.yaxis_inverted()


def test_scatter_has_the_chapters_axes_and_every_class() -> None:
    points, labels = torch.randn(50, 2), torch.arange(50) % 3
    figure = plots.latent_scatter(points, labels, ["o", "ki", "su"], "title", limit=4.0)
    axes = figure.axes[0]
    assert (axes.get_xlim(), axes.get_ylim(), axes.get_aspect()) == ((-4, 4), (-4, 4), 1)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["o", "ki", "su"]
    assert len({tuple(colour) for colour in axes.collections[0].get_facecolors()}) == 3


def test_curves_leave_out_the_height_of_the_first_steps() -> None:
    axes = Figure().add_subplot()
    steps = list(range(100))
    plots.curves(axes, {"run": (steps, [1000.0] + [10.0 - 0.01 * step for step in steps[1:]])}, "loss")
    assert axes.get_ylim()[1] < 12


def test_one_of_many_curves_does_not_flatten_the_others() -> None:
    steps = list(range(20))
    many = {f"run {number}": (steps, [100.0 - number + step % 2 for step in steps]) for number in range(6)}
    lagrangian = {"geco": (steps, [1e7 * (step + 1) for step in steps])}
    axes = Figure().add_subplot()
    plots.curves(axes, {"none": ([], []), **many, **lagrangian}, "loss")
    assert 90 < axes.get_ylim()[0] < 95 < 101 < axes.get_ylim()[1] < 105
    assert axes.get_title() == "loss (1 outside)"


def test_curves_are_left_outside_only_if_most_are_not() -> None:
    near, spike = [3.0, 2.0, 1.0, 2.0], [1.0, 2.0, 1e7, 2.0]
    seeds = [[300.0, 250.0, 220.0 + 1e-3 * number, 219.0] for number in range(6)]  # alike, each with its own fall
    assert plots.far_outside(seeds) == set()
    assert plots.far_outside([near] * 4 + [spike]) == {4}
    for compared in ([], [spike], [near, spike], [near] * 3 + [spike], [near] * 3 + [spike] * 3):
        assert plots.far_outside(compared) == set()


def test_a_curve_of_a_single_point_is_a_dot() -> None:
    axes = Figure().add_subplot()
    plots.curves(axes, {"one": ([3], [5.0]), "gaps": ([3, 3], [float("nan"), 4.0]), "none": ([], [])}, "loss")
    assert [line.get_marker() for line in axes.lines] == ["o", "o", ""]
    assert axes.get_xlim() == (2, 4)
    longer = Figure().add_subplot()
    plots.curves(longer, {"run": ([1, 2, 3], [1.0, 2.0, 3.0])}, "loss")
    assert [line.get_marker() for line in longer.lines] == [""]


def test_scatter_without_labels_has_one_colour_and_no_legend() -> None:
    for dimensions in (1, 2):
        figure = plots.latent_scatter(torch.randn(50, dimensions), None, (), "title")
        assert figure.legends == []
        assert len({tuple(colour) for colour in figure.axes[0].collections[0].get_facecolors()}) == 1
