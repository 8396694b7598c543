"""Reading images of any kind for a model, and writing a model's images as pictures, animations or arrays."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.functional import to_pil_image, to_tensor

from ..errors import UsageError
from ..plots import tile

__all__ = ["pixels", "read_image", "write_gif", "write_images"]

LARGEST_SIDE = 8192  # pixels of an image that is read


def read_image(path: Path, shape: Sequence[int]) -> Tensor:
    """An image file as `(1, C, H, W)` in [0, 1], made grey or coloured and resized as a model needs it; says if so.

    Args:
        path: of a file in any format that Pillow reads.
        shape: `(C, H, W)`.

    Raises:
        UsageError: if there is no such file, it is no image, or a very large one.
    """
    channels, height, width = shape
    try:
        with Image.open(path) as picture:
            if max(picture.size) > LARGEST_SIDE:
                raise UsageError(
                    f"{path}: has {picture.width} × {picture.height} pixels, at most {LARGEST_SIDE} a side"
                )
            found = ImageOps.exif_transpose(picture).convert({1: "L", 3: "RGB"}.get(channels, "L"))
    except FileNotFoundError:
        raise UsageError(f"{path}: no such file") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path}: cannot be read as an image: {str(error).splitlines()[0]}") from error
    if found.size != (width, height):
        print(f"{path}: resized from {found.width} × {found.height} to {width} × {height} pixels")
        found = found.resize((width, height), Image.Resampling.LANCZOS)
    return to_tensor(found)[None]


def pixels(images: Tensor) -> Tensor:
    """Returns images in [0, 1] as uint8 on the CPU; values outside are clamped."""
    return (images.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()


def write_images(images: Tensor, output: Path, columns: int = 0, what: str = "images") -> str:
    """Writes images `(N, C, H, W)`, uint8, as the ending says: .png side by side, .gif in turn, .npz as an array.

    Args:
        images: at least one.
        output: where to.
        columns: of a picture; 0 for a square one.
        what: they are.

    Returns:
        What has been written, to be said.
    """
    if output.suffix == ".npz":
        np.savez_compressed(output, images=images.numpy())
        return f"images: {tuple(images.shape)}, uint8"
    if output.suffix == ".gif":
        return write_gif(images, output, what)
    columns = columns or math.ceil(len(images) ** 0.5)
    to_pil_image(tile(images / 255, columns)).save(output)
    return f"{len(images)} {what}"


def write_gif(frames: Tensor, output: Path, what: str) -> str:
    """Writes frames `(N, C, H, W)`, uint8, there and back, enlarged to be seen; returns what has been written."""
    pictures = [to_pil_image(frame) for frame in frames]
    factor = max(1, 256 // max(pictures[0].size))
    size = (pictures[0].width * factor, pictures[0].height * factor)
    larger = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    there_and_back = larger + larger[-2:0:-1]
    there_and_back[0].save(output, save_all=True, append_images=there_and_back[1:], duration=80, loop=0)
    return f"{len(frames)} {what}, there and back"
