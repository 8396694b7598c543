"""A common interface to the images of a split, in memory or fetched from a data set."""

import hashlib
import math
from collections.abc import Sequence
from copy import copy
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset

from ..errors import DataError
from .batch import Batch
from .sources import Split

__all__ = ["FetchedImages", "Images", "StoredImages", "images_of"]

DIGESTED = 64 * 2**20  # bytes of images


class Images(Protocol):
    """The images of a split, numbered from 0.

    Attributes:
        shape: `(C, H, W)`.
        labelled: whether they have labels.
        factors: the values of known factors of variation `(N, K)`; None where there are none.
    """

    @property
    def factors(self) -> Tensor | None: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def labelled(self) -> bool: ...

    def __len__(self) -> int: ...

    def take(self, indices: Tensor) -> Batch:
        """Returns uint8 images and their labels, in the order of the indices `(B,)`."""
        ...

    def subset(self, indices: Tensor) -> "Images":
        """Returns the images with these indices `(N,)`, numbered anew."""
        ...

    def with_labels_of(self, indices: Tensor) -> "Images":
        """Returns the images with the labels of those with these indices alone; all others have the label −1."""
        ...

    def binarized(self, scale: float) -> "Images":
        """Returns the images with each pixel drawn as 0 or 1, once and for all; 1 with probability value / scale."""
        ...


class StoredImages:
    """Images in memory, or mapped into it from a file.

    Args:
        images: `(M, C, H, W)`, uint8.
        labels: `(M,)`, int64, or None.
        factors: `(M, K)`, or None.
        chosen: which of them belong to the split, `(N,)`; by default all. They are not copied.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        factors: Tensor | None = None,
        chosen: Tensor | None = None,
    ) -> None:
        self._images = images
        self._labels = labels
        self._factors = factors
        self.chosen = chosen

    @property
    def images(self) -> Tensor:
        """`(N, C, H, W)`."""
        return self._images if self.chosen is None else self._images[self.chosen]

    @property
    def labels(self) -> Tensor | None:
        """`(N,)`, or None."""
        return self._labels if self.chosen is None or self._labels is None else self._labels[self.chosen]

    @property
    def factors(self) -> Tensor | None:
        """`(N, K)`, or None."""
        return self._factors if self.chosen is None or self._factors is None else self._factors[self.chosen]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self._images.shape[1:])

    @property
    def labelled(self) -> bool:
        return self._labels is not None

    @property
    def nbytes(self) -> int:
        each = self._images[:1].nbytes + (0 if self._labels is None else self._labels.itemsize)
        return len(self) * each

    def __len__(self) -> int:
        return len(self._images if self.chosen is None else self.chosen)

    def to(self, device: torch.device) -> "StoredImages":
        """Returns the images on a device."""
        if device == self._images.device:
            return self
        labels = None if self.labels is None else self.labels.to(device)
        return StoredImages(self.images.to(device), labels, self.factors)  # the model does not see factors

    def digest(self) -> str:
        """Returns a digest of images and labels: of all, or of as many as 64 MB, evenly spaced."""
        each = max(1, math.prod(self.shape))
        some = torch.linspace(0, len(self) - 1, min(len(self), max(1, DIGESTED // each))).long()
        found = hashlib.sha256(f"{len(self)} {self.shape}".encode())
        for tensor in self.take(some):
            found.update(b"" if tensor is None else tensor.cpu().contiguous().numpy().data)
        return found.hexdigest()[:24]

    def take(self, indices: Tensor) -> Batch:
        """Returns images and labels, gathered on the device that holds them."""
        indices = (indices if self.chosen is None else self.chosen[indices]).to(self._images.device)
        return Batch(self._images[indices], None if self._labels is None else self._labels[indices])

    def subset(self, indices: Tensor) -> "StoredImages":
        chosen = indices if self.chosen is None else self.chosen[indices]
        return StoredImages(self._images, self._labels, self._factors, chosen)

    def with_labels_of(self, indices: Tensor) -> "StoredImages":
        chosen = indices if self.chosen is None else self.chosen[indices]
        labels = None
        if self._labels is not None:
            labels = torch.full_like(self._labels, -1)
            labels[chosen] = self._labels[chosen]
        return StoredImages(self._images, labels, self._factors, self.chosen)

    def binarized(self, scale: float) -> "StoredImages":
        generator = torch.Generator().manual_seed(0)
        # In parts, because the probabilities take four times the images' memory.
        drawn = [(part / scale).bernoulli(generator=generator).byte() for part in self.images.split(10_000)]
        return StoredImages(torch.cat(drawn), self.labels, self.factors)


class FetchedImages:
    """Images fetched from a map-style data set on demand, without caching.

    Args:
        dataset: see the contract of a source in `vae_lightning.data`.

    Attributes:
        factors: None; only images in memory have them.
        chosen: the items `(N,)` of the data set that belong to the split.
        known: whether the label of each item of the data set is given; None if all are.
        scale: for binary images, what pixel values are divided by to be the probability of 1; None for grey values.

    Raises:
        DataError: for a data set that is not map-style or has no items, or a first item that is not a uint8 image
            `(C, H, W)`.
    """

    factors: Tensor | None = None

    def __init__(self, dataset: Dataset[Any]) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise DataError(f"{type(dataset).__name__}: must be a map-style data set, with __len__ and __getitem__")
        self.dataset = dataset
        self.chosen = torch.arange(len(dataset))
        self.scale: float | None = None
        self.known: Tensor | None = None
        if not len(self.chosen):
            raise DataError(f"{type(dataset).__name__}: has no items")
        image, label = _image_and_label(self._items([0])[0])
        self._check(image, 0, None)
        self.shape = tuple(image.shape)
        self.labelled = label is not None

    def __len__(self) -> int:
        return len(self.chosen)

    def take(self, indices: Tensor) -> Batch:
        """Fetches images and labels.

        Raises:
            DataError: for an item that violates the contract.
        """
        items = self.chosen[indices].tolist()
        pairs = [_image_and_label(item) for item in self._items(items)]
        for item, (image, label) in zip(items, pairs, strict=True):
            self._check(image, item, self.shape)
            if (label is not None) != self.labelled or (label is not None and label < 0):
                expected = "a whole number from 0" if self.labelled else "None, as that of the first item"
                raise DataError(f"{self._name(item)}: its label must be {expected}, got {label}")
        images = torch.empty(len(items), *self.shape, dtype=torch.uint8)
        for row, (item, (image, _)) in enumerate(zip(items, pairs, strict=True)):
            images[row] = self._pixels(image, item)
        labels = torch.tensor([label for _, label in pairs], dtype=torch.int64) if self.labelled else None
        if labels is not None and self.known is not None:
            labels = labels.where(self.known[self.chosen[indices]], -1)
        return Batch(images, labels)

    def subset(self, indices: Tensor) -> "FetchedImages":
        subset = copy(self)
        subset.chosen = self.chosen[indices]
        return subset

    def with_labels_of(self, indices: Tensor) -> "FetchedImages":
        other = copy(self)
        other.known = torch.zeros(len(self.dataset), dtype=torch.bool)
        other.known[self.chosen[indices]] = True
        return other

    def binarized(self, scale: float) -> "FetchedImages":
        binary = copy(self)
        binary.scale = scale
        return binary

    def stored(self) -> StoredImages:
        """Returns all images in memory."""
        parts = [self.take(part) for part in torch.arange(len(self)).split(1000)]
        labels = torch.cat([part.labels for part in parts if part.labels is not None]) if self.labelled else None
        return StoredImages(torch.cat([part.images for part in parts]), labels)

    def _items(self, items: list[int]) -> Sequence[Any]:
        if hasattr(self.dataset, "__getitems__"):
            return self.dataset.__getitems__(items)
        return [self.dataset[item] for item in items]

    def _pixels(self, image: Tensor, item: int) -> Tensor:
        if self.scale is None:
            return image
        # The noise depends on the item alone, so that every batch and every process has the same image.
        generator = torch.Generator().manual_seed(item)
        return (image / self.scale).bernoulli(generator=generator).byte()

    def _name(self, item: int) -> str:
        return f"item {item} of {type(self.dataset).__name__}"

    def _check(self, image: Tensor, item: int, shape: tuple[int, ...] | None) -> None:
        if image.dtype == torch.uint8 and image.dim() == 3 and tuple(image.shape) == (shape or tuple(image.shape)):
            return
        expected = f"of shape {list(shape)}" if shape else "(C, H, W)"
        found = f"{str(image.dtype).removeprefix('torch.')} of shape {list(image.shape)}"
        raise DataError(f"{self._name(item)}: must be a uint8 image {expected}, got {found}")


def images_of(loaded: Split | Dataset[Any]) -> StoredImages | FetchedImages:
    """Wraps the images loaded by a source in the common interface.

    Raises:
        DataError: for images or labels whose type violates the contract.
    """
    if not isinstance(loaded, tuple):
        return FetchedImages(loaded)
    images, labels, factors = (*loaded, None)[:3]
    for name, part in zip(Split._fields, (images, labels, factors), strict=True):
        if not isinstance(part, Tensor) and (part is not None or name == "images"):
            raise DataError(
                f"{name}: must be a tensor, got {type(part).__name__}; torch.as_tensor makes one of an array"
            )
    if images.dtype != torch.uint8 or images.dim() != 4:
        raise DataError(f"images: must be uint8 (N, C, H, W), got {_what(images)}")
    if factors is not None and (factors.dim() != 2 or len(factors) != len(images) or not factors.isfinite().all()):
        expected = f"finite numbers ({len(images)}, K), one row for each image"
        raise DataError(f"factors: must be {expected}, got {_what(factors)}")
    if labels is None:
        return StoredImages(images, factors=factors)
    if labels.shape != images.shape[:1]:
        raise DataError(f"labels: must be one for each of the {len(images)} images, got shape {list(labels.shape)}")
    if len(labels) and labels.min() < 0:
        raise DataError(f"labels: must be whole numbers from 0, got {labels.min().item()}")
    return StoredImages(images, labels.long(), factors)


def _what(tensor: Tensor) -> str:
    finite = "" if tensor.isfinite().all() else ", some NaN or infinite"
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {list(tensor.shape)}{finite}"


def _image_and_label(item: Any) -> tuple[Tensor, int | None]:
    image, label = (*item, None)[:2] if isinstance(item, tuple | list) else (item, None)
    try:
        return torch.as_tensor(image), None if label is None else int(label)
    except (RuntimeError, TypeError, ValueError) as error:
        found = f"{type(image).__name__} and {type(label).__name__}"
        raise DataError(
            f"items: must be uint8 tensors (C, H, W), or pairs of one and its label, got {found}"
        ) from error
