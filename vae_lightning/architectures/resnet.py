"""Residual networks, for any image with sides divisible by 4.

They halve the image twice, and further while a side has more than 8 pixels and both are even: 28 to 7, 32, 64 and 128
to 8.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from torch.distributions import Distribution

from ..posteriors import GaussianHead, Head

__all__ = ["ResNetDecoder", "ResNetEncoder", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """x + f(x), where f is [batch norm, SiLU, 3×3 convolution] twice.

    Args:
        channels: of input and output.

    Source: He et al. (2016), full pre-activation, https://arxiv.org/abs/1603.05027.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers = nn.Sequential()
        for _ in range(2):
            layers += nn.Sequential(
                nn.BatchNorm2d(channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            )
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNetEncoder(nn.Module):
    """Two or more strided convolutions, each followed by residual blocks, and the posterior's head.

    Args:
        image_shape: `(C, H, W)`, H and W divisible by 4.
        latent_dim: dimension of z.
        width: channels at half resolution, doubled at a quarter, and again at an eighth and below.
        blocks: residual blocks at each resolution.
        posterior: makes the posterior's head; see `vae_lightning.posteriors`.

    Raises:
        ValueError: for images with a side that is not divisible by 4.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        width: int = 32,
        blocks: int = 1,
        posterior: Head = GaussianHead,
    ) -> None:
        super().__init__()
        smallest, widths = _levels(image_shape, width)
        self.trunk = nn.Sequential()
        for before, after in pairwise([image_shape[0], *widths]):
            self.trunk += nn.Sequential(nn.Conv2d(before, after, 4, stride=2, padding=1), *_blocks(after, blocks))
        self.trunk += nn.Sequential(nn.BatchNorm2d(widths[-1]), nn.SiLU(), nn.Flatten())
        self.head = posterior(widths[-1] * prod(smallest), latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.head(self.trunk(x))


class ResNetDecoder(nn.Module):
    """A hidden layer to the smallest map, then residual blocks and a transposed convolution, twice or more.

    Args:
        image_shape: `(C, H, W)`, H and W divisible by 4; C as many as the likelihood needs.
        latent_dim: dimension of z.
        width: channels at half resolution, doubled at a quarter, and again at an eighth and below.
        blocks: residual blocks at each resolution.
        hidden: units of the first layer.

    Raises:
        ValueError: for images with a side that is not divisible by 4.
    """

    def __init__(
        self, image_shape: Sequence[int], latent_dim: int, width: int = 32, blocks: int = 1, hidden: int = 256
    ) -> None:
        super().__init__()
        sides, widths = _levels(image_shape, width)
        smallest = (widths[-1], *sides)
        self.trunk = nn.Sequential(nn.Linear(latent_dim, hidden), nn.SiLU(), nn.Linear(hidden, prod(smallest)))
        self.trunk.append(nn.Unflatten(1, smallest))
        for before, after in pairwise([*reversed(widths), image_shape[0]]):
            self.trunk += nn.Sequential(*_blocks(before, blocks), nn.BatchNorm2d(before), nn.SiLU())
            self.trunk.append(nn.ConvTranspose2d(before, after, 4, stride=2, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        images = self.trunk(z.reshape(-1, z.shape[-1]))
        return images.view(*z.shape[:-1], *images.shape[1:])


def _levels(image_shape: Sequence[int], width: int) -> tuple[tuple[int, int], list[int]]:
    """Height and width of the smallest map, and the channels at each resolution, from half the image's downwards."""
    for side in image_shape[1:]:
        if side % 4:
            raise ValueError(f"image_shape: the resnet needs sides divisible by 4, got {side}")
    _, height, breadth = image_shape
    widths: list[int] = []
    while len(widths) < 2 or (max(height, breadth) > 8 and height % 2 == breadth % 2 == 0):
        height, breadth = height // 2, breadth // 2
        widths.append(width * min(2 ** len(widths), 4))
    return (height, breadth), widths


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]
