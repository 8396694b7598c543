"""Reading a run's files for the report. A missing or damaged file reads as None, so that it affects no other run."""

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image

from ..runs import Run

__all__ = ["Arrays", "is_exact", "read_arrays", "read_explorer", "read_figures", "read_picture"]

Arrays = dict[str, np.ndarray]

# Number of axes of each array. `labels` and `class_names` are missing where images have no labels, `exact` in runs of
# versions before 0.2.
FIGURES = {"points": 2, "explained": 1, "rates": 1, "originals": 4, "reconstructions": 4}
EXPLORER = {
    "codes": 2, "images": 4, "explained": 1, "box": 2, "lattice": 5, "dimensions": 1, "values": 1, "slides": 5,
}  # fmt: skip
OPTIONAL = {"labels": 1, "class_names": 1, "exact": 0, "names": 1, "decoded_classes": 1}


def read_figures(run: Run) -> Arrays | None:
    """Returns the arrays from which a run's final figures were drawn."""
    return _labelled(read_arrays(run.arrays_file, FIGURES, OPTIONAL), "points")


def read_explorer(run: Run) -> Arrays | None:
    """Returns the arrays that the latent explorer shows."""
    found = _labelled(read_arrays(run.explorer_file, EXPLORER, OPTIONAL), "codes")
    numbers = [value for value in (found or {}).values() if value.dtype.kind == "f"]
    return found if all(np.isfinite(value).all() for value in numbers) else None


def is_exact(arrays: Arrays, latent_dim: int) -> bool:
    """Returns whether points are the codes' own coordinates, not a reduction of them to two dimensions."""
    return bool(arrays["exact"]) if "exact" in arrays else latent_dim <= 2


def _labelled(arrays: Arrays | None, points: str) -> Arrays | None:
    """Returns the arrays if their labels, if any, match the points; without labels, class names are dropped."""
    if arrays is None or "labels" not in arrays:
        return {name: value for name, value in arrays.items() if name != "class_names"} if arrays else None
    labels, names = arrays["labels"], arrays.get("class_names", np.array([]))
    fit = labels.dtype.kind in "iu" and len(labels) == len(arrays[points])
    return arrays | {"class_names": names} if fit and (labels.size == 0 or labels.min() >= 0) else None


def read_arrays(file: Path, axes: Mapping[str, int], optional: Mapping[str, int] | None = None) -> Arrays | None:
    """Returns the arrays of an archive if all required ones are there with the right number of axes.

    Args:
        file: as `numpy.savez` writes it.
        axes: number of axes of the arrays that must be there.
        optional: of those that may be there.
    """
    try:
        with np.load(file, allow_pickle=False) as archive:
            found = dict(archive)
    except (OSError, ValueError, EOFError, BadZipFile, MemoryError):
        return None
    known = {**axes, **{name: count for name, count in (optional or {}).items() if name in found}}
    complete = all(name in found and found[name].ndim == count for name, count in known.items())
    return found if complete else None


def read_picture(file: Path) -> Image.Image | None:
    """Returns a picture, completely loaded."""
    try:
        with Image.open(file) as picture:
            picture.load()
            return picture.copy()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
