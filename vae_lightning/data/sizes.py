"""What keeps memory and time bounded where images are large."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["at_most", "at_once", "shrunk"]

AT_ONCE = 32 * 2**20  # bytes of images that pass through a model at the same time; layers take some times as much
ON_GPU = 8  # times as many, or launching kernels takes longer than they do


def at_most(size: int, image_shape: Sequence[int]) -> int:
    """Returns how many images `(C, H, W)`, as float32, fit in so many bytes; at least one."""
    return max(1, size // (4 * math.prod(image_shape)))


def at_once(image_shape: Sequence[int], device: torch.device | None = None) -> int:
    """Returns how many images `(C, H, W)` to encode or decode at the same time.

    Args:
        image_shape: of one.
        device: where; by default on the CPU, or, where the noise of an image depends on those beside it, anywhere.

    >>> at_once((1, 28, 28)), at_once((3, 64, 64)), at_once((3, 128, 128))
    (1000, 682, 170)
    """
    times = ON_GPU if device is not None and device.type == "cuda" else 1
    return min(times * 1000, at_most(times * AT_ONCE, image_shape))


def shrunk(images: Tensor, side: int) -> Tensor:
    """Returns images `(N, C, H, W)` with neither side longer than `side`: of larger ones, squares are averaged."""
    factor = -(-max(images.shape[-2:]) // side)
    return images if factor == 1 else functional.avg_pool2d(images, factor, ceil_mode=True)
