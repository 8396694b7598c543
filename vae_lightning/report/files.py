"""What a run has left for the report; nothing where a file is missing or damaged, which then costs no other run."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

__all__ = ["EXPLORER", "FIGURES", "read_arrays", "read_picture"]

# Number of axes of each array in `figures/explorer.npz` and `figures/figures.npz`.
EXPLORER = {
    "codes": 2, "labels": 1, "class_names": 1, "images": 4, "explained": 1, "box": 2, "lattice": 5, "dimensions": 1,
    "values": 1, "slides": 5,
}  # fmt: skip
FIGURES = {
    "points": 2, "explained": 1, "labels": 1, "class_names": 1, "rates": 1, "originals": 4, "reconstructions": 4,
    "samples": 4,
}  # fmt: skip


def read_arrays(file: Path, axes: Mapping[str, int]) -> dict[str, np.ndarray] | None:
    """The arrays of an archive, if it has those that are named, with so many axes each."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
    except (OSError, ValueError, EOFError, BadZipFile, MemoryError):
        return None
    complete = all(name in found and found[name].ndim == count for name, count in axes.items())
    return found if complete else None


def read_picture(file: Path) -> Image.Image | None:
    """A picture, whole, or none."""
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
