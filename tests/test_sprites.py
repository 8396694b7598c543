"""The built-in sources with known factors: sprites, and what glyphs are drawn from."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from vae_lightning.data.glyphs import FORMS, Glyphs
from vae_lightning.data.sprites import AREA_SIDE, REACH, Sprites, draw

SIZES = {"train_size": 300, "test_size": 60}
SHAPES = {"square": 0, "ellipse": 1, "heart": 2}


def grey(shape: int, scale: float, orientation: float, x: float, y: float, size: int = 64) -> Tensor:
    """One sprite `(size, size)` in [0, 1]."""
    return draw(torch.tensor([[shape, scale, orientation, x, y]]), size)[0, 0] / 255


def middle(image: Tensor) -> tuple[float, float]:
    """The centre of mass of an image, as shares of its width and height."""
    places = (torch.arange(len(image)) + 0.5) / len(image)
    return tuple(((image.sum(axis) * places).sum() / image.sum()).item() for axis in (0, 1))  # type: ignore[return-value]


@pytest.mark.parametrize("source", [Glyphs, Sprites])
def test_factors_are_named_and_of_their_kind(source: type[Glyphs] | type[Sprites]) -> None:
    split = source(**SIZES).load(Path(), True)
    assert split.factors is not None
    assert split.factors.shape == (300, len(source.factor_names))
    assert set(source.categorical_factors) < set(source.factor_names)
    for name, values in zip(source.factor_names, split.factors.T, strict=True):
        assert values.isfinite().all()
        assert len(values.unique()) > 1
        assert (name in source.categorical_factors) == bool((values == values.round()).all()), name


def test_sprites_are_the_same_for_a_seed_and_differ_otherwise() -> None:
    train, test = (Sprites(**SIZES).load(Path(), train) for train in (True, False))
    assert (train.images.shape, test.images.shape) == ((300, 1, 32, 32), (60, 1, 32, 32))
    assert (train.images.dtype, train.labels) == (torch.uint8, None)
    again, other = (Sprites(**SIZES, seed=seed).load(Path(), True) for seed in (0, 1))
    assert torch.equal(again.images, train.images)
    assert torch.equal(again.factors, train.factors)
    assert not torch.equal(other.images, train.images)
    assert len({image.numpy().tobytes() for image in torch.cat([train.images, test.images])}) == 360
    assert torch.equal(draw(train.factors, 32), train.images)
    with pytest.raises(ValueError, match="image_size: must be a whole number of at least 8, got 7"):
        Sprites(image_size=7)


def test_the_factors_of_sprites_are_evenly_drawn_and_independent() -> None:
    factors = Sprites(train_size=3000).load(Path(), True).factors
    assert factors[:, 0].long().bincount().tolist() == [1000] * 3
    for values, (low, high) in zip(factors.T[1:], [(0.5, 1), (0, math.tau), (0, 1), (0, 1)], strict=True):
        shares = values.histc(10, low, high) / len(values)
        assert (shares - 0.1).abs().max() < 0.03
        assert shares.sum().item() == pytest.approx(1)
    assert (factors.T.corrcoef() - torch.eye(5)).abs().max() < 0.08


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_sprite_has_the_area_and_the_place_that_its_factors_say(shape: int, size: int) -> None:
    """Also in the corners of the picture, so nothing of it is cut off."""
    for scale, orientation, x, y in [
        (1, 0, 0.5, 0.5),
        (0.5, 1, 0.2, 0.9),
        (1, 2.5, 0, 0),
        (1, 4, 1, 1),
        (0.8, 5.7, 1, 0),
    ]:
        image = grey(shape, scale, orientation, x, y, size)
        assert image.sum().item() == pytest.approx((AREA_SIDE * scale * size) ** 2, rel=0.06 if size == 16 else 0.02)
        expected = [REACH + (1 - 2 * REACH) * place for place in (x, y)]
        assert middle(image) == pytest.approx(expected, abs=0.05 / size)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_an_edge_is_as_bright_as_the_pixel_is_covered(shape: int) -> None:
    """As in a picture with sixteen times the resolution, whose pixels are averaged."""
    for orientation in (0.0, 0.3, 2.0):
        coarse, fine = (grey(shape, 0.9, orientation, 0.41, 0.63, size) for size in (32, 512))
        difference = coarse - avg_pool2d(fine[None], 16)[0]
        assert difference.abs().max() < 0.25  # at corners, where the edge is not straight
        assert difference.square().mean().sqrt() < 0.02


def test_orientation_turns_clockwise_and_shapes_have_their_symmetries() -> None:
    images = {
        name: [grey(shape, 1, 0.4 + turn * math.pi / 2, 0.5, 0.5) for turn in range(3)]
        for name, shape in SHAPES.items()
    }
    for start, quarter, half in images.values():
        torch.testing.assert_close(quarter, start.rot90(-1), atol=0.01, rtol=0)
        torch.testing.assert_close(half, start.rot90(2), atol=0.01, rtol=0)
    differences = {
        name: [bool((turned - start).abs().max() > 0.02) for turned in (quarter, half)]
        for name, (start, quarter, half) in images.items()
    }
    assert differences == {"square": [False, False], "ellipse": [True, False], "heart": [True, True]}
    upright = grey(SHAPES["heart"], 1, 0, 0.5, 0.5)
    torch.testing.assert_close(upright, upright.flip(1))
    widths = (upright > 0.5).sum(1)
    assert widths[widths > 0][-1] < 4 < widths[widths > 0][0]  # its tip is below


def test_glyphs_are_drawn_as_before_there_were_factors() -> None:
    split = Glyphs(**SIZES).load(Path(), True)
    assert split.labels[:10].tolist() == [3, 6, 0, 9, 5, 3, 6, 8, 1, 1]
    brightness = [42.26, 34.78, 43.6, 53.88, 41.73, 35.81, 36.31, 42.65, 26.48, 32.7]
    assert split.images[:10].float().mean((1, 2, 3)).tolist() == pytest.approx(brightness, abs=0.02)


def test_glyphs_are_drawn_from_their_factors() -> None:
    split = Glyphs(train_size=1500).load(Path(), True)
    names = dict(zip(Glyphs.factor_names, split.factors.double().T, strict=True))
    # A form belongs to one class, and all forms occur.
    classes = [label for label, forms in enumerate(FORMS.values()) for _ in forms]
    form = names["form"].long()
    assert [classes[number] for number in form] == split.labels.tolist()
    assert form.unique().tolist() == [*range(len(classes))]

    images = split.images[:, 0].double() / 255
    ink = images / images.sum((1, 2), keepdim=True)
    places = torch.arange(28.0).double() - 13.5
    x, y = (ink.sum(axis) @ places for axis in (1, 2))
    right, down = places - x[:, None], places - y[:, None]
    wide, high = ((ink.sum(axis) * part**2).sum(1) for axis, part in ((1, right), (2, down)))
    together = torch.einsum("nij,ni,nj->n", ink, down, right)
    measured = {
        "thickness": images.sum((1, 2)),
        "width": wide.sqrt(),
        "height": high.sqrt(),
        "shift_x": x,
        "shift_y": y,
    }

    def within(values: Tensor) -> Tensor:
        """The differences from the mean of the images of the same form."""
        counts = form.bincount().double()
        return values - (form.bincount(values) / counts)[form]

    for name, values in measured.items():
        assert torch.stack([within(values), within(names[name])]).corrcoef()[0, 1] > 0.6, name
    # To first order, slanting adds slant * var(y) to the covariance of x and y, and turning angle * (var(x) - var(y)).
    causes = torch.stack([within(names["slant"] * high), within(names["angle"] * (wide - high))], dim=1)
    found = torch.linalg.lstsq(causes, within(together)[:, None]).solution.squeeze(1)
    assert found.tolist() == pytest.approx([1, 1], abs=0.15)
