"""Residual networks, for any image with sides divisible by 4."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.distributions import Independent

from ..posteriors import GaussianHead

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
    """Two strided convolutions, each followed by residual blocks, and a Gaussian head.

    Args:
        image_shape: `(C, H, W)`, H and W divisible by 4.
        latent_dim: dimension of z.
        width: channels at half resolution, doubled at a quarter.
        blocks: residual blocks at each resolution.

    Raises:
        ValueError: for images with a side that is not divisible by 4.
    """

    def __init__(self, image_shape: Sequence[int], latent_dim: int, width: int = 32, blocks: int = 1) -> None:
        super().__init__()
        height, breadth = _quarters(image_shape)
        self.trunk = nn.Sequential(nn.Conv2d(image_shape[0], width, 4, stride=2, padding=1), *_blocks(width, blocks))
        self.trunk += nn.Sequential(nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), *_blocks(2 * width, blocks))
        self.trunk += nn.Sequential(nn.BatchNorm2d(2 * width), nn.SiLU(), nn.Flatten())
        self.head = GaussianHead(2 * width * height * breadth, latent_dim)

    def forward(self, x: Tensor) -> Independent:
        return self.head(self.trunk(x))


class ResNetDecoder(nn.Module):
    """A hidden layer to a quarter of the resolution, then residual blocks and a transposed convolution, twice.

    Args:
        image_shape: `(C, H, W)` of the raw parameters, H and W divisible by 4.
        latent_dim: dimension of z.
        width: channels at half resolution, doubled at a quarter.
        blocks: residual blocks at each resolution.
        hidden: units of the first layer.

    Raises:
        ValueError: for images with a side that is not divisible by 4.
    """

    def __init__(
        self, image_shape: Sequence[int], latent_dim: int, width: int = 32, blocks: int = 1, hidden: int = 256
    ) -> None:
        super().__init__()
        quarter = (2 * width, *_quarters(image_shape))
        self.trunk = nn.Sequential(nn.Linear(latent_dim, hidden), nn.SiLU(), nn.Linear(hidden, prod(quarter)))
        self.trunk.append(nn.Unflatten(1, quarter))
        self.trunk += nn.Sequential(*_blocks(2 * width, blocks), nn.BatchNorm2d(2 * width), nn.SiLU())
        self.trunk += nn.Sequential(
            nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1), *_blocks(width, blocks)
        )
        self.trunk += nn.Sequential(nn.BatchNorm2d(width), nn.SiLU())
        self.trunk.append(nn.ConvTranspose2d(width, image_shape[0], 4, stride=2, padding=1))

    def forward(self, z: Tensor) -> Tensor:
        images = self.trunk(z.reshape(-1, z.shape[-1]))
        return images.view(*z.shape[:-1], *images.shape[1:])


def _quarters(image_shape: Sequence[int]) -> tuple[int, int]:
    for side in image_shape[1:]:
        if side % 4:
            raise ValueError(f"image_shape: the resnet needs sides divisible by 4, got {side}")
    return image_shape[1] // 4, image_shape[2] // 4


def _blocks(channels: int, count: int) -> list[nn.Module]:
    return [ResidualBlock(channels) for _ in range(count)]
