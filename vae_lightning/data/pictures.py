"""One image file, or image of a data set, as an array of the wanted size and number of channels."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..errors import first_line

__all__ = ["FORMATS", "MOST_PIXELS", "Fitting", "PictureError", "is_grey", "open_picture", "pixels", "upright_size"]

# Also what Pillow may open: its other decoders are rarely used, and some run other programs.
FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
}
MOST_PIXELS = 100_000_000  # of a picture; larger ones are refused before they are decoded
ORIENTATION = 0x0112  # in EXIF data: 5 to 8 mean that width and height are exchanged

Fitting = Literal["crop", "pad"]


class PictureError(ValueError):
    """A picture cannot be used; the message says why."""


def open_picture(path: Path) -> Image.Image:
    """Opens an image file without decoding it.

    Raises:
        PictureError: for a file that is no image, is damaged, or has more than `MOST_PIXELS` pixels.
    """
    with _told():
        picture = Image.open(path, formats=list(FORMATS))
    if picture.width * picture.height > MOST_PIXELS:
        raise PictureError(f"has {picture.width} × {picture.height} pixels, more than {MOST_PIXELS:,}")
    return picture


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Returns the height and width of a picture as it is to be seen, according to its EXIF orientation."""
    turned = _orientation(picture) in (5, 6, 7, 8)
    return (picture.width, picture.height) if turned else (picture.height, picture.width)


def is_grey(picture: Image.Image) -> bool:
    """Returns whether a picture's format has no colours.

    Raises:
        PictureError: for a damaged picture with a palette.
    """
    if picture.mode in ("P", "PA"):
        with _told():
            colours = np.asarray(picture.getpalette("RGB") or [0], np.uint8)
        return colours.size % 3 == 0 and bool((colours.reshape(-1, 3) == colours.reshape(-1, 3)[:, :1]).all())
    return picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16")


def pixels(
    picture: Image.Image, size: tuple[int, int], channels: int, fit: Fitting, background: int
) -> NDArray[np.uint8]:
    """Decodes a picture: turned upright, on a plain background where it is transparent, of a size and colour.

    Of an animation, the first frame is taken. 16 bits per pixel become 8.

    Args:
        picture: not closed by this function.
        size: wanted height and width.
        channels: 1 for grey, 3 for colour.
        fit: `crop` fills the whole size and cuts off what sticks out on two sides; `pad` shows the whole picture, with
            the background beside it.
        background: grey level from 0 to 255.

    Returns:
        `(C, H, W)`.

    Raises:
        PictureError: for a damaged picture, or floating-point pixels outside [0, 1].
    """
    mode = "L" if channels == 1 else "RGB"
    with _told():
        found = _of_eight_bits(ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture)
        if found.has_transparency_data:
            found = found.convert("RGBA")
            plain = Image.new("RGBA", found.size, (background, background, background, 255))
            found = Image.alpha_composite(plain, found)
        found = found.convert(mode)
        wanted = (size[1], size[0])
        if found.size != wanted:
            if fit == "crop":
                found = ImageOps.fit(found, wanted, Image.Resampling.LANCZOS)
            else:
                colour = (background,) * channels if channels > 1 else background
                found = ImageOps.pad(found, wanted, Image.Resampling.LANCZOS, color=colour)
    array = np.asarray(found, np.uint8)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _orientation(picture: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none that can be read."""
    try:
        with _told():
            return picture.getexif().get(ORIENTATION, 1)
    except PictureError:  # if the picture is damaged too, its pixels tell
        return 1


def _of_eight_bits(picture: Image.Image) -> Image.Image:
    """Scales pictures of more than 8 bits per pixel to 8, which Pillow would cut off."""
    if picture.mode not in ("I", "F") and not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.float64)
    most = 1.0 if picture.mode == "F" else 65535.0
    if not (values.min() >= 0 and values.max() <= most):
        raise PictureError(f"has pixels from {values.min():g} to {values.max():g}, outside 0 to {most:g}")
    return Image.fromarray(np.rint(values / most * 255).astype(np.uint8))


@contextmanager
def _told() -> Iterator[None]:
    """A context in which what Pillow raises becomes a `PictureError`; it warns of large images and odd metadata."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PictureError:
        raise
    except Image.DecompressionBombError as error:
        raise PictureError(f"has more than {MOST_PIXELS:,} pixels") from error
    except Image.UnidentifiedImageError as error:
        raise PictureError("is not an image in a known format") from error
    except Exception as error:  # a damaged file may raise anything
        known = isinstance(error, OSError) and error.strerror
        raise PictureError(known.lower() if known else f"is damaged: {first_line(error)}") from error
