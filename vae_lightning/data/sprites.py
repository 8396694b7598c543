"""A built-in data set with known factors of variation, in the manner of dSprites: one shape in each picture.

dSprites (Matthey, Higgins, Hassabis and Lerchner 2017, https://github.com/google-deepmind/dsprites-dataset) has every
combination of some values of the same factors, at 64 × 64 pixels and with hard edges. Here the values are drawn at
random from whole ranges, at any resolution, and a pixel on an edge is as bright as the share of it that is covered.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor

from .drawn import Drawn
from .sources import Split

__all__ = ["Sprites", "draw"]

AREA_SIDE = 0.32  # side of the square at scale 1, as a share of the picture; the other shapes have the same area
PIXELS_AT_ONCE = 2**18  # drawn together: few enough for the processor's cache

# Of shapes of area 1. The ellipse is chosen so that all of them reach equally far, to within 3 %.
ELLIPSE = (math.sqrt(1.6 / math.pi), math.sqrt(1 / (1.6 * math.pi)))  # its half axes
REACH = AREA_SIDE * ELLIPSE[0]  # of the largest ellipse, as a share of the picture
HEART_SIDE = math.sqrt(1 / (1 + math.pi / 4))  # of the square that bears the two half discs of the heart
HEART_MIDDLE = HEART_SIDE * math.sqrt(0.5) * (7 / 6 + 3 * math.pi / 8) / (1 + math.pi / 4)  # above its tip


class Sprites(Drawn):
    """A white square, ellipse or heart on black, of equal areas, wholly within the picture; equal for the same seed.

    The factors of an image are independent of each other and evenly drawn. They are, in this order: `shape`, 0 for a
    square, 1 for an ellipse and 2 for a heart, equally often, to within one image; `scale`, from 0.5 to 1, the square's
    side being 0.32 of the picture at 1; `orientation`, from 0 to 2π, clockwise; and `x` and `y`, from 0 to 1, of its
    middle, to the right and downwards, as far as the largest shape stays within the picture. As in dSprites, a square
    looks the same after a quarter of a turn and an ellipse after half a turn, so the orientation cannot always be told
    from the picture. There are no labels: the shape is a factor among others.

    Args:
        train_size: number of training images.
        test_size: number of test images; other ones than the training images.
        image_size: height and width in pixels.
        seed: determines every image.

    Raises:
        ValueError: for a size below 1 (below 8 for `image_size`).
    """

    class_names = ()
    factor_names = ("shape", "scale", "orientation", "x", "y")
    categorical_factors = ("shape",)

    def __init__(self, train_size: int = 20_000, test_size: int = 5_000, image_size: int = 32, seed: int = 0) -> None:
        super().__init__(_drawn, train_size, test_size, image_size, seed)


@lru_cache(maxsize=2)  # the jobs of a sweep share a process
def _drawn(count: int, size: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    shape = (torch.arange(count) % 3)[torch.randperm(count, generator=generator)]
    scale, orientation, x, y = torch.rand(4, count, generator=generator)
    factors = torch.stack([shape, 0.5 + scale / 2, math.tau * orientation, x, y], dim=1)
    return Split(draw(factors, size), factors=factors)


def draw(factors: Tensor, size: int) -> Tensor:
    """Returns sprites of any factors: uint8 `(N, 1, size, size)`.

    Args:
        factors: `(N, 5)`: shape, scale, orientation, x and y, see `Sprites`.
        size: height and width in pixels.
    """
    reach = math.floor(REACH * size) + 1  # pixels around the one with a sprite's middle that it can touch
    pictures = torch.zeros(len(factors), 1, size + 4, size + 4, dtype=torch.uint8)  # with a margin for the reach
    for shape, distance in enumerate((_square, _ellipse, _heart)):
        members = (factors[:, 0] == shape).nonzero().squeeze(1)
        for chosen in members.split(max(1, PIXELS_AT_ONCE // (2 * reach + 1) ** 2)) if len(members) else ():
            _, scale, orientation, *middle = factors[chosen].T.unsqueeze(2)
            unit = AREA_SIDE * size * scale  # pixels that are 1 for a shape of area 1
            right, down = (size * (REACH + (1 - 2 * REACH) * value) for value in middle)
            columns, rows = (value.long() + torch.arange(-reach, reach + 1) for value in (right, down))
            x, y = ((columns + 0.5 - right) / unit).unsqueeze(1), ((rows + 0.5 - down) / unit).unsqueeze(2)
            cosine, sine = orientation.cos().unsqueeze(2), orientation.sin().unsqueeze(2)
            away = distance(cosine * x + sine * y, cosine * y - sine * x) * unit.unsqueeze(2)
            grey = (255 * (0.5 - away).clamp(0, 1)).round().byte()  # as if the edge went straight through the pixel
            pictures[chosen.view(-1, 1, 1), 0, (rows + 2).unsqueeze(2), (columns + 2).unsqueeze(1)] = grey
    return pictures[..., 2:-2, 2:-2].contiguous()


# Signed distances of points from the edge, negative inside; exact near the edge, to first order for the ellipse.


def _square(x: Tensor, y: Tensor, side: float = 1.0) -> Tensor:
    across, along = x.abs() - side / 2, y.abs() - side / 2
    return torch.hypot(across.clamp(min=0), along.clamp(min=0)) + torch.maximum(across, along).clamp(max=0)


def _ellipse(x: Tensor, y: Tensor) -> Tensor:
    a, b = ELLIPSE
    radius = torch.hypot(x / a, y / b)
    return radius * (radius - 1) / torch.hypot(x / a**2, y / b**2).clamp(min=1e-6)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    """A square that stands on its corner, with a half disc on each of the two sides above."""
    along, across = (HEART_MIDDLE - y + x) * math.sqrt(0.5), (HEART_MIDDLE - y - x) * math.sqrt(0.5)
    # Along the two sides that meet at the tip, where both are zero.
    half = HEART_SIDE / 2
    nearest = _square(along - half, across - half, HEART_SIDE)
    for first, second in ((along, across), (across, along)):
        nearest = torch.minimum(nearest, torch.hypot(first - half, second - HEART_SIDE) - half)
    return nearest
