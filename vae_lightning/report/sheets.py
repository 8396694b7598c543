"""Images embedded in the page as WebP: each once, though several runs share it, and many small ones as one sheet."""

import base64
import hashlib
import io
import math

import numpy as np
from PIL import Image

__all__ = ["Sheets", "columns", "embedded", "in_rows"]


class Sheets:
    """The embedded pictures.

    Attributes:
        sources: their data addresses, by a key that is their digest.
    """

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def add(self, picture: Image.Image, quality: int) -> str:
        """Adds a picture unless it is there; returns its key."""
        source = embedded(picture, quality)
        key = hashlib.sha256(source.encode()).hexdigest()[:12]
        self.sources[key] = source
        return key

    def add_images(self, images: np.ndarray) -> str:
        """Adds images `(R, S, C, H, W)`, uint8, in R rows as one picture; returns its key."""
        rows, across, channels, height, width = images.shape
        quality = 80 if channels == 1 else 90  # below that, colours run into the next image
        picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, across * width, channels)
        return self.add(Image.fromarray(picture.squeeze(2) if channels == 1 else picture), quality)


def embedded(picture: Image.Image, quality: int) -> str:
    """Returns a picture as a data address, WebP of a quality from 0 to 100."""
    content = io.BytesIO()
    picture.convert("RGB").save(content, "WEBP", quality=quality, method=4)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def columns(count: int) -> int:
    """Returns how many images are in a row of a sheet that is about square."""
    return math.ceil(math.sqrt(count))


def in_rows(images: np.ndarray) -> np.ndarray:
    """Returns images `(N, C, H, W)` as `(R, S, C, H, W)`, about square, padded with black images."""
    across = columns(len(images))
    rows = -(-len(images) // across)
    filled = np.zeros((rows * across, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    return filled.reshape(rows, across, *images.shape[1:])
