"""Data sets in MNIST's file format, as torchvision lists them: read from disk or downloaded, always verified."""

import gzip
import hashlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import pooch
import requests
import torch
import torchvision
from filelock import FileLock
from torch import Tensor
from torch.utils.data import Dataset

from ..errors import DataError

__all__ = [
    "DataError",
    "Source",
    "Split",
    "TestImagesOnly",
    "TorchvisionMNIST",
    "cache_folder",
    "data_folder",
    "held_out",
    "refuse_identifiers",
]

log = logging.getLogger(__name__)
pooch.get_logger().setLevel(logging.WARNING)  # this module logs its downloads itself

TIMEOUT_SECONDS = 30
MOST_CLASSES = 1000  # or more, if there are more images

# MD5 of the content of archives, by that of the archive: MNIST's four files, and KMNIST's without the training images.
CONTENTS = {
    "f68b3c2dcbeaaa9fbdd348bbdeb94873": "6bbc9ace898e44ae57da46a324031adb",
    "d53e105ee54ea40749a09fcbcd1e9432": "a25bea736e30d166cdddb491f175f624",
    "9fb629c4189551a2d022fa330f9573f3": "2646ac647ad5339dbf082846283269ea",
    "ec29112dd5afa0611ce80d1b7f02629c": "27ae3e4e09519cfbb04c329615203637",
    "5c965bf0a639b31b8f53240b1b52f4d7": "bf305b8cd328700fbc17f5acbc2856d2",
    "7320c461ea6c1c855c0b718fb2a4b134": "9f55f451c0988b028eccdf7d5cc265ab",
    "e144d726b3acfaa3e44228e80efcd344": "949e75301f8813e0dc5800dcc320fc52",
}


class Split(NamedTuple):
    """The images of a split in memory.

    Attributes:
        images: `(N, C, H, W)`, uint8.
        labels: `(N,)`, int64, or None without labels.
        factors: `(N, K)`, finite numbers, the values of K known factors of variation that each image was made from;
            None where there are none.
    """

    images: Tensor
    labels: Tensor | None = None
    factors: Tensor | None = None


class Source(Protocol):
    """See `vae_lightning.data` for the contract. (An optional member, `image_shape`, is not part of the type.)"""

    class_names: Sequence[str]

    def prepare(self, root: Path) -> None: ...

    def load(self, root: Path, train: bool) -> Split | Dataset[Any]: ...


def data_folder(root: str | os.PathLike[str] | None) -> Path:
    """Returns the folder of all data sets.

    It is `root`, else `$VAE_DATA_DIR`, else `data/` in the checkout, else `data/` in the current folder.
    """
    if root is None:
        checkout = Path(__file__).parents[2]
        default = checkout if (checkout / "pyproject.toml").is_file() else Path()
        root = os.environ.get("VAE_DATA_DIR") or default / "data"
    return Path(root).expanduser()


def cache_folder(cache: str | None) -> Path:
    """Returns `cache`, else `$VAE_CACHE_DIR`, else `vae_lightning` in the user's cache folder."""
    if cache or (cache := os.environ.get("VAE_CACHE_DIR")):
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_lightning"


def held_out(images: int, share: float, seed: int, place: str) -> Tensor:
    """Chooses images for testing.

    Args:
        images: number of images.
        share: of them, greater than 0 and less than 1; at least one image is chosen, and one is left.
        seed: of the choice.
        place: where the images are, for the message.

    Returns:
        `(N,)`, true for test images.

    Raises:
        DataError: if there are fewer than two images.
    """
    if images < 2:
        raise DataError(f"{place}: {images} image; there must be at least one to train on and one to test on")
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    chosen = torch.zeros(images, dtype=torch.bool)
    chosen[order[: min(images - 1, max(1, round(share * images)))]] = True
    return chosen


def refuse_identifiers(largest: int, images: int, option: str = "labels") -> None:
    """Raises `DataError` for a largest label that numbers something else than classes, as a date does.

    There would be a class, with a name and a place in the figures, for every number up to it.
    """
    if largest >= max(MOST_CLASSES, images):
        raise DataError(
            f"data: labels must number the classes from 0, but go up to {largest} for {images:,} images. Number them "
            f"so, or leave them out with data.source.{option}=false"
        )


class TorchvisionMNIST:
    """A torchvision data set in MNIST's format: MNIST, FashionMNIST or KMNIST.

    File names, checksums and the layout `<root>/<dataset>/raw/*.gz` are torchvision's, where root is the folder of all
    data sets. Existing files are read in place (a read-only folder is enough), also the unpacked ones that torchvision
    leaves, if the checksum of their content is known; missing ones are downloaded, by one process at a time.

    Args:
        dataset: the class's name in `torchvision.datasets`.
        class_names: one name per label; by default torchvision's.
        mirrors: base addresses, tried in order; by default torchvision's.

    Raises:
        ValueError: for a data set that torchvision does not have, or has in another format.
    """

    image_shape = (1, 28, 28)

    def __init__(
        self,
        dataset: str,
        class_names: Sequence[str] | None = None,
        mirrors: Sequence[str] | None = None,
    ) -> None:
        if dataset not in ("MNIST", "FashionMNIST", "KMNIST"):
            raise ValueError(f"dataset: must be MNIST, FashionMNIST or KMNIST, got {dataset!r}")
        kind: Any = getattr(torchvision.datasets, dataset)
        self.checksums: dict[str, str] = dict(kind.resources)
        self.class_names = tuple(class_names or kind.classes)
        self.mirrors = tuple(mirrors if mirrors is not None else kind.mirrors)
        self.subfolder = Path(dataset, "raw")

    def prepare(self, root: Path) -> None:
        """Downloads missing and damaged files.

        Raises:
            DataError: when a file cannot be downloaded.
        """
        folder = root / self.subfolder
        if all(self._intact(folder / file) for file in self.needed()):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".download.lock"):
                for file in self.needed():
                    if not self._intact(folder / file):  # another process may have fetched it meanwhile
                        self._download(folder / file)
        except OSError as error:
            raise DataError(self._explain(folder, [f"to write: {error.strerror or error}"])) from error

    def load(self, root: Path, train: bool) -> Split:
        """Returns the 60,000 training or 10,000 test images.

        Raises:
            DataError: for a file that is missing, damaged or inconsistent with its header.
        """
        folder = root / self.subfolder
        prefix = "train" if train else "t10k"
        images = self._read(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
        labels = self._read(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        if len(images) != len(labels):
            raise DataError(f"{folder}: {len(images)} {prefix} images, but {len(labels)} labels")
        return Split(images.unsqueeze(1), labels.long())

    def needed(self) -> list[str]:
        """Returns the names of the files that `load` reads."""
        return list(self.checksums)

    def _intact(self, path: Path) -> bool:
        if path.is_file():
            return _md5(path.read_bytes()) == self.checksums[path.name]
        return self._unpacked(path) is not None

    def _unpacked(self, path: Path) -> bytes | None:
        """The content of an archive, if it lies unpacked beside it and is known to be intact."""
        unpacked, expected = path.with_suffix(""), CONTENTS.get(self.checksums[path.name])
        if expected is None or not unpacked.is_file():
            return None
        content = unpacked.read_bytes()
        return content if _md5(content) == expected else None

    def _download(self, path: Path) -> None:
        if path.exists():
            log.warning("%s does not match its checksum; downloading it again", path)
        tried = []
        for mirror in self.mirrors:
            address = mirror.rstrip("/") + "/" + path.name
            log.info("downloading %s", address)
            try:
                # pooch writes to a temporary file, verifies it, and only then moves it into place.
                pooch.retrieve(
                    address,
                    known_hash=f"md5:{self.checksums[path.name]}",
                    fname=path.name,
                    path=path.parent,
                    downloader=pooch.HTTPDownloader(progressbar=True, timeout=TIMEOUT_SECONDS),
                )
                return
            except (requests.RequestException, ValueError) as error:
                tried.append(f"{address}: {_reason(error)}")
        raise DataError(self._explain(path.parent, tried))

    def _explain(self, folder: Path, tried: list[str]) -> str:
        paths = [folder / file for file in self.needed()]
        found = [
            f"{path.name} is damaged" if path.exists() else f"no {path.name}"
            for path in paths
            if not self._intact(path)
        ]
        return "\n".join(
            [f"{folder}: {', '.join(found)}"]
            + [f"  tried {attempt}" for attempt in tried]
            + [f"  Put {', '.join(self.needed())} there by hand, or name another folder with data.root=FOLDER."]
            + ["  Without a download: data=glyphs."]
        )

    def _read(self, path: Path, dimensions: int) -> Tensor:
        if not path.exists() and (content := self._unpacked(path)) is not None:
            return _parse_idx(content, dimensions, path)
        try:
            packed = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        if (found := _md5(packed)) != self.checksums[path.name]:
            raise DataError(f"{path} is damaged: its MD5 is {found}, not {self.checksums[path.name]}. Delete it.")
        return _parse_idx(gzip.decompress(packed), dimensions, path)


class TestImagesOnly(TorchvisionMNIST):
    """Only the test files, for quick work on real data: the first images for training, the rest for testing.

    Args:
        dataset: see `TorchvisionMNIST`.
        train_size: number of training images.
        class_names: see `TorchvisionMNIST`.
        mirrors: see `TorchvisionMNIST`.

    Raises:
        ValueError: when no image would be left for training or testing.
    """

    __test__ = False  # not a test case, despite its name

    def __init__(
        self,
        dataset: str,
        train_size: int = 9000,
        class_names: Sequence[str] | None = None,
        mirrors: Sequence[str] | None = None,
    ) -> None:
        super().__init__(dataset, class_names, mirrors)
        if not 0 < train_size < 10_000:
            raise ValueError(f"train_size: must be between 1 and 9999, got {train_size}")
        self.train_size = train_size

    def needed(self) -> list[str]:
        return [file for file in self.checksums if file.startswith("t10k")]

    def load(self, root: Path, train: bool) -> Split:
        part = slice(None, self.train_size) if train else slice(self.train_size, None)
        found = super().load(root, train=False)
        assert found.labels is not None
        return Split(found.images[part], found.labels[part])


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer in {TIMEOUT_SECONDS} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "the downloaded file has the wrong checksum"


def _parse_idx(content: bytes, dimensions: int, path: Path) -> Tensor:
    """IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, their big-endian sizes, the data."""
    header = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:header], ">u4").tolist()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - header != np.prod(sizes, dtype=np.int64):
        raise DataError(f"{path}: not a file of unsigned bytes with {dimensions} dimensions in IDX format")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(sizes).copy())
