"""Images in an array file, and the labels and factors of variation beside them: .npz, .npy, .pt or .h5."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError, first_line
from .sources import Split, held_out

__all__ = ["Arrays"]

# The usual names in such files, with those of the labels beside them.
NAMES = {
    "train_images": "train_labels",  # MedMNIST
    "x_train": "y_train",  # Keras
    "images": "labels",
    "imgs": "labels",
    "x": "y",
    "X": "y",
    "data": "labels",
}
FACTORS = ("factors", "latents_values")  # the second is dSprites'
WITHOUT_LABELS = "data.source.labels=false leaves labels out"
AT_ONCE = 10_000  # images that are converted together


class Arrays:
    """Images, and labels and factors of variation if there are any, in a file of arrays.

    Images are `(N, H, W)`, `(N, H, W, C)` or `(N, C, H, W)` with 1 or 3 channels: uint8, floats in [0, 1], or integers
    that are either all 0 or 1, or from 0 to 255. Labels are `(N,)` or `(N, 1)`, whole numbers from 0 or the names of
    classes. Factors are `(N, K)`, finite numbers. Images are kept in memory; those of a uint8 .npy file are mapped
    into it.

    Args:
        path: a file: `.npz`, `.npy` (images only), `.pt` (a tensor, a pair of images and labels, or a dictionary of
            tensors) or `.h5` (needs h5py).
        test_path: a file of the same kind with the test images, by the same names or those with "test" instead of
            "train". Otherwise they are taken from the first file: arrays with such names, or a share of the images.
        images: name of the array of images in the file; by default one of the usual names.
        labels: name of the array of labels; by default the usual one beside the images, unless it is that of the
            factors. False for no labels.
        factors: name of the array of factors; by default "factors" or dSprites' "latents_values", if there is one.
        factor_names: names of the factors, in their order; by default their numbers, from 1.
        categorical_factors: names of the factors whose values have no order.
        channels_last: whether the channels are the last axis; by default told from the shape.
        class_names: in the order of the labels; by default their numbers, or the names that are the labels, sorted.
        test_share: share of the images that is held out for testing, if there are no test images.
        split_seed: seed of their selection.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        path: str,
        test_path: str | None = None,
        images: str | None = None,
        labels: str | Literal[False] | None = None,
        factors: str | None = None,
        factor_names: Sequence[str] | None = None,
        categorical_factors: Sequence[str] | None = None,
        channels_last: bool | None = None,
        class_names: Sequence[str] | None = None,
        test_share: float = 0.1,
        split_seed: int = 0,
    ) -> None:
        if not 0 < test_share < 1:
            raise ValueError(f"test_share: must be a number between 0 and 1, got {test_share}")
        self.path = Path(path).expanduser()
        self.test_path = None if test_path is None else Path(test_path).expanduser()
        self.images = images
        self.labels = labels
        self.factors = factors
        self.factor_names = tuple(map(str, factor_names or ()))
        self.categorical_factors = tuple(map(str, categorical_factors or ()))
        self.channels_last = channels_last
        self.class_names = tuple(class_names or ())
        self.test_share = test_share
        self.split_seed = split_seed

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(C, H, W)`.

        Raises:
            DataError: for a file that cannot be read, or holds no images.
        """
        return tuple(self._splits[0].images.shape[1:])

    def prepare(self, root: Path) -> None:
        """Does nothing: the file is the user's."""

    def load(self, root: Path, train: bool) -> Split:
        return self._splits[0 if train else 1]

    @cached_property
    def _splits(self) -> tuple[Split, Split]:
        arrays = _read(self.path)
        names = self._names(self.path, arrays)
        train = self._split(self.path, arrays, *names)
        test_names = [name.replace("train", "test") for name in names]
        if self.test_path is not None:
            others = _read(self.test_path, "test_path")
            test = self._split(self.test_path, others, *self._names(self.test_path, others, test=True))
        elif test_names[0] != names[0] and test_names[0] in arrays:
            test = self._split(self.path, arrays, *test_names)
        else:
            rows = held_out(len(train.images), self.test_share, self.split_seed, f"data.source.path={self.path}")
            train, test = (
                Split(*(None if part is None else part[chosen] for part in train))  # type: ignore[arg-type]
                for chosen in (~rows, rows)
            )
        shapes = [list(split.images.shape[1:]) for split in (train, test)]
        if shapes[0] != shapes[1]:
            raise DataError(f"{self.path}: training images are {shapes[0]}, but test images {shapes[1]}")
        for name in ("labels", "factors"):
            if (getattr(train, name) is None) != (getattr(test, name) is None):
                raise DataError(f"{self.path}: only the training or only the test images have {name}")
        self._check_names(0 if train.factors is None else train.factors.shape[1])
        return train, test

    def _check_names(self, count: int) -> None:
        if self.factor_names and len(self.factor_names) != count:
            raise DataError(
                f"data.source.factor_names: must be one for each of the {count} factors in {self.path}, "
                f"got {', '.join(self.factor_names)}"
            )
        known = self.factor_names or [str(number) for number in range(1, count + 1)]
        if strange := [name for name in self.categorical_factors if name not in known]:
            raise DataError(
                f"data.source.categorical_factors: must be names of factors in {self.path}, which has "
                f"{', '.join(known) or 'none'}; got {', '.join(strange)}"
            )

    def _names(self, path: Path, arrays: Mapping[str, Any], test: bool = False) -> tuple[str, str, str]:
        """The names of the images, and of their labels and factors, which need not be there."""

        def there(name: str) -> str:
            return name.replace("train", "test") if test and name not in arrays else name

        known = [name for name in NAMES if there(name) in arrays] or (list(arrays) if len(arrays) == 1 else [])
        images = self.images or next(iter(known), None)
        factors = self.factors or next((name for name in FACTORS if name in arrays), "factors")
        labels = self.labels or NAMES.get(str(images), "labels")
        if self.labels is False or (self.labels is None and labels == factors):
            labels = ""  # no array has that name
        for option, name in [("images", images), ("labels", self.labels or None), ("factors", self.factors)]:
            if (option == "images" or name is not None) and there(str(name)) not in arrays:
                raise DataError(
                    f"{path}: set data.source.{option} to the name of the {option}, got {name or 'null'}; "
                    f"the file has {', '.join(sorted(arrays)) or 'no arrays'}"
                )
        return there(str(images)), there(labels), there(factors)

    def _split(self, path: Path, arrays: Mapping[str, Any], images: str, labels: str, factors: str) -> Split:
        pictures = self._pictures(_get(arrays, images, path), f"{path}: {images}")
        known = {"labels": (labels, self._labels), "factors": (factors, _factors)}
        beside = {
            part: read(_get(arrays, name, path), len(pictures), f"{path}: {name}")
            for part, (name, read) in known.items()
            if name in arrays
        }
        return Split(pictures, **beside)

    def _pictures(self, array: NDArray[Any], place: str) -> Tensor:
        shape = tuple(array.shape)
        last, first = len(shape) == 4 and shape[3] in (1, 3), len(shape) == 4 and shape[1] in (1, 3)
        channels_last = last if self.channels_last is None else self.channels_last
        if self.channels_last is None and last and first:
            raise DataError(f"{place}: are of shape {list(shape)}; set data.source.channels_last to true or false")
        if not (len(shape) == 3 or (last if channels_last else first)) or 0 in shape:
            found = f"{array.dtype} of shape {list(shape)}"
            shapes = "(N, H, W), or (N, H, W, C) or (N, C, H, W) with 1 or 3 channels"
            raise DataError(f"{place}: must be of shape {shapes}, got {found}")
        pictures = torch.from_numpy(_bytes(array, place))
        if len(shape) == 3:
            return pictures.unsqueeze(1)
        return pictures.movedim(-1, 1) if channels_last else pictures

    def _labels(self, array: NDArray[Any], images: int, place: str) -> Tensor:
        array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        if array.shape != (images,):
            expected = f"one for each of the {images} images"
            hint = f"{WITHOUT_LABELS}, data.source.factors=NAME takes several numbers for each"
            raise DataError(f"{place}: must be {expected}, got shape {list(array.shape)}; {hint}")
        if array.dtype.kind in "SU":
            return torch.from_numpy(self._numbers(array, place))
        strange = array if array.dtype.kind not in "buif" else array[~((array >= 0) & (array == np.round(array)))]
        if len(strange):
            raise DataError(f"{place}: must be whole numbers from 0 or names, got {strange[0]}; {WITHOUT_LABELS}")
        return torch.from_numpy(array.astype(np.int64))

    def _numbers(self, labels: NDArray[Any], place: str) -> NDArray[np.int64]:
        """Labels that are names as numbers; the names become those of the classes, unless these are known."""
        texts = np.char.decode(labels, "utf-8", "replace") if labels.dtype.kind == "S" else labels
        names, numbers = np.unique(texts, return_inverse=True)
        self.class_names = self.class_names or tuple(names.tolist())
        if strange := sorted(set(names.tolist()) - set(self.class_names)):
            raise DataError(f"{place}: must be of the classes {', '.join(self.class_names)}; got {strange[0]}")
        return np.array([self.class_names.index(name) for name in names.tolist()])[numbers]


def _read(path: Path, option: str = "path") -> Mapping[str, Any]:
    """The arrays in a file, by name; read when they are asked for, where the format allows it."""
    kind = path.suffix.lower()
    if kind not in (".npz", ".npy", ".pt", ".h5", ".hdf5"):
        raise DataError(f"data.source.{option}={path}: must be a .npz, .npy, .pt or .h5 file")
    if not path.is_file():
        raise DataError(f"data.source.{option}={path}: there is no such file")
    try:
        if kind in (".npz", ".npy"):
            loaded = np.load(path, mmap_mode="c", allow_pickle=False)
            return loaded if isinstance(loaded, Mapping) else {"images": loaded}
        if kind == ".pt":
            return _tensors(torch.load(path, map_location="cpu", weights_only=True))
        import h5py

        with h5py.File(path, "r") as file:
            return {name: node[()] for name, node in file.items() if isinstance(node, h5py.Dataset)}
    except ImportError as error:
        raise DataError(f"data.source.{option}={path}: needs h5py; pip install h5py") from error
    except Exception as error:  # a damaged file may raise anything
        raise DataError(f"data.source.{option}={path}: cannot be read: {first_line(error)}") from error


def _get(arrays: Mapping[str, Any], name: str, path: Path) -> NDArray[Any]:
    try:
        return np.asanyarray(arrays[name])
    except Exception as error:  # of a compressed archive, it is read only now
        raise DataError(f"{path}: {name} cannot be read: {first_line(error)}") from error


def _tensors(loaded: Any) -> dict[str, Any]:
    if isinstance(loaded, Tensor):
        loaded = {"images": loaded}
    if isinstance(loaded, tuple | list) and len(loaded) == 2:
        loaded = dict(zip(("images", "labels"), loaded, strict=True))
    if not isinstance(loaded, dict):
        raise ValueError("holds neither a tensor, nor images and labels, nor a dictionary of tensors")
    return {str(name): value.numpy() for name, value in loaded.items() if isinstance(value, Tensor)}


def _bytes(array: NDArray[Any], place: str) -> NDArray[np.uint8]:
    """Converts pixels to 0 … 255, part by part."""
    real = array.dtype.kind == "f"
    if array.dtype.kind not in "buif":
        raise DataError(f"{place}: must be numbers, got {array.dtype}")
    parts = range(0, len(array), AT_ONCE)
    # NaN spreads to the minimum and the maximum.
    least = min(array[start : start + AT_ONCE].min() for start in parts)
    most = max(array[start : start + AT_ONCE].max() for start in parts)
    if not (least >= 0 and most <= (1 if real else 255)):
        allowed = "floats from 0 to 1" if real else "whole numbers from 0 to 255"
        raise DataError(f"{place}: must be {allowed}, got {least:g} to {most:g}")
    if array.dtype == np.uint8 and most > 1:
        return array
    scale = 255 if real or most <= 1 else 1
    pictures = np.empty(array.shape, np.uint8)
    for start in parts:
        pictures[start : start + AT_ONCE] = np.rint(array[start : start + AT_ONCE].astype(np.float32) * scale)
    return pictures


def _factors(array: NDArray[Any], images: int, place: str) -> Tensor:
    if array.ndim != 2 or len(array) != images or 0 in array.shape:
        raise DataError(f"{place}: must be of shape ({images}, K), a row for each image, got {list(array.shape)}")
    if array.dtype.kind not in "buif":
        raise DataError(f"{place}: must be numbers, got {array.dtype}")
    if not np.isfinite(array).all():
        raise DataError(f"{place}: must be finite numbers, got NaN or infinite values")
    return torch.from_numpy(array.astype(np.float64))
