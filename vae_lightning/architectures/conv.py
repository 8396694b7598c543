"""The chapter's convolutional network, for images with even sides of at least 6 pixels; large ones get more stages."""

import math
from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from torch.distributions import Distribution

from ..posteriors import GaussianHead, Head

__all__ = ["ConvDecoder", "ConvEncoder"]

CHAPTER = 4  # stages, for images of 28 pixels a side
MOST = 16  # stages: no image can be halved more often


class ConvEncoder(nn.Module):
    """Strided convolutions, each halving the image, and the posterior's head.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: dimension of z.
        width: channels of the first convolution, doubled by each later one up to eightfold. The chapter uses the image
            size, 28.
        stages: number of convolutions. None for as many as the image size asks for: four from 17 to 45 pixels, as in
            the chapter, five up to 90, six up to 181, …; three from 9 pixels, two below, because batch norm needs
            more than one pixel where a batch has a single image.
        posterior: makes the posterior's head; see `vae_lightning.posteriors`.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        width: int = 28,
        stages: int | None = CHAPTER,
        posterior: Head = GaussianHead,
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        widths = [channels, *_widths(width, stages, sides)]
        self.trunk = nn.Sequential()
        for before, after in pairwise(widths):
            self.trunk += nn.Sequential(
                nn.Conv2d(before, after, kernel_size=3, stride=2, padding=1), nn.BatchNorm2d(after), nn.LeakyReLU()
            )
            sides = [(side + 1) // 2 for side in sides]
        self.head = posterior(widths[-1] * prod(sides), latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.head(self.trunk(x).flatten(1))


class ConvDecoder(nn.Module):
    """A linear map to the channels of one pixel, and transposed convolutions up to the image.

    The first expands the pixel to the smallest map (4×4 for 28, 32, 64 and 128 pixels). The others double it, cropping
    a pixel at each edge if the doubled map would be too large (8 → 14).

    Args:
        image_shape: `(C, H, W)` of the raw parameters, H and W even.
        latent_dim: dimension of z.
        width: channels before the last layer; see `ConvEncoder`.
        stages: number of transposed convolutions; see `ConvEncoder`. None for fewer where the shorter side of long
            images cannot be halved as often.

    Raises:
        ValueError: for images with an odd side, or too small to be halved by all stages but one.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16.
    """

    def __init__(
        self, image_shape: Sequence[int], latent_dim: int, width: int = 28, stages: int | None = CHAPTER
    ) -> None:
        super().__init__()
        channels, *sides = image_shape
        possible = max(2, (min(sides) - 2).bit_length())
        widths = [*reversed(_widths(width, stages, sides, possible)), channels]
        (height, paddings_h), (breadth, paddings_b) = (_upsampling_plan(side, len(widths) - 2) for side in sides)
        layers: list[nn.ConvTranspose2d] = [SpreadPixel(widths[0], widths[1], (height, breadth))]
        for (before, after), pad_h, pad_b in zip(pairwise(widths[1:]), paddings_h, paddings_b, strict=True):
            layers.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=(pad_h, pad_b), bias=False))
        self.project = nn.Linear(latent_dim, widths[0])
        self.trunk = nn.Sequential(nn.Unflatten(1, (widths[0], 1, 1)))
        for layer in layers[:-1]:
            self.trunk += nn.Sequential(layer, nn.BatchNorm2d(layer.out_channels), nn.LeakyReLU())
        self.trunk.append(layers[-1])

    def forward(self, z: Tensor) -> Tensor:
        images = self.trunk(self.project(z).reshape(-1, self.project.out_features))
        return images.view(*z.shape[:-1], *images.shape[1:])


class SpreadPixel(nn.ConvTranspose2d):
    """A transposed convolution, without padding or bias, of one-pixel maps.

    Each pixel is multiplied by the whole kernel: a single matrix product, faster than the general algorithm.
    The output is in channels-last memory format, which the next convolution prefers.
    """

    def __init__(self, in_channels: int, out_channels: int, size: tuple[int, int]) -> None:
        super().__init__(in_channels, out_channels, size, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        _, channels, height, width = self.weight.shape
        kernel = self.weight.permute(0, 2, 3, 1).flatten(1)
        return (x.flatten(1) @ kernel).view(-1, height, width, channels).permute(0, 3, 1, 2)


def _widths(width: int, stages: int | None, sides: Sequence[int], possible: int = MOST) -> list[int]:
    """Channels of each stage, from the image inwards; None for as many as `ConvEncoder` says, if possible."""
    if stages is None:
        leaving_two_pixels = max(2, math.ceil(math.log2(max(sides))) - 1)
        stages = min(max(CHAPTER, round(math.log2(min(sides))) - 1), leaving_two_pixels, possible)
    if not 2 <= stages <= MOST:
        raise ValueError(f"stages: must be a whole number from 2 to {MOST}, or null, got {stages}")
    return [min(2**stage, 8) * width for stage in range(stages)]


def _upsampling_plan(side: int, doublings: int) -> tuple[int, list[int]]:
    """Side of the smallest map, and the paddings of the layers that double it up to `side`.

    A layer with kernel 4 and stride 2 turns n pixels into 2·n with padding 1, and into 2·n − 2 with padding 2.
    """
    paddings: list[int] = []
    size = side
    for _ in range(doublings):
        if size % 2 or size < 4:
            least = 2**doublings + 2
            raise ValueError(f"image_shape: the conv decoder needs even sides of at least {least} pixels, got {side}")
        odd_half = size // 2 % 2
        paddings.insert(0, 2 if odd_half else 1)
        size = size // 2 + odd_half
    return size, paddings
