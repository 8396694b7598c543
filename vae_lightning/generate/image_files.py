"""Reading images of any kind for a model, and writing a model's images as pictures, animations or arrays."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from ..data.pictures import Fitting, PictureError, open_picture, pixels, upright_size
from ..errors import UsageError
from ..plots import drawable, tile

__all__ = ["read_image", "write_gif", "write_images"]

LARGEST_SIDE = 8192  # pixels of an image that is read


def read_image(path: Path, shape: Sequence[int], fit: Fitting = "crop", background: int = 255) -> Tensor:
    """An image file as `(1, C, H, W)` in [0, 1], made grey or coloured and of the size a model needs; says if so.

    Args:
        path: of a file in one of the formats of `data=folder`.
        shape: `(C, H, W)`.
        fit: what is done with images of another shape, and …
        background: … the grey level behind transparent ones; see `vae_lightning.data.pictures.pixels`.

    Raises:
        UsageError: if there is no such file, it is no image, or a very large one.
    """
    channels, height, width = shape
    if not path.exists():
        raise UsageError(f"{path}: no such file")
    try:
        with open_picture(path) as picture:
            found_height, found_width = upright_size(picture)
            if max(found_height, found_width) > LARGEST_SIDE:
                raise UsageError(f"{path}: has {found_width} × {found_height} pixels, at most {LARGEST_SIDE} a side")
            found = pixels(picture, (height, width), channels, fit, background)
    except PictureError as error:
        raise UsageError(f"{path}: cannot be read as an image: {error}") from error
    if (found_height, found_width) != (height, width):
        cut = fit == "crop" and found_height * width != found_width * height
        how = "cropped and resized" if cut else "resized"
        print(f"{path}: {how} from {found_width} × {found_height} to {width} × {height} pixels")
    return torch.tensor(found)[None].float() / 255


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
    pictures = [to_pil_image(frame) for frame in drawable(frames)]
    factor = max(1, 256 // max(pictures[0].size))
    size = (pictures[0].width * factor, pictures[0].height * factor)
    larger = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    there_and_back = larger + larger[-2:0:-1]
    there_and_back[0].save(output, save_all=True, append_images=there_and_back[1:], duration=80, loop=0)
    return f"{len(frames)} {what}, there and back"
