"""Data sets in MNIST's file format, as torchvision lists them: found on disk or downloaded, always verified."""

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

__all__ = ["DataError", "Source", "Split", "TestImagesOnly", "TorchvisionMNIST", "data_folder"]

log = logging.getLogger(__name__)
pooch.get_logger().setLevel(logging.WARNING)  # what is downloaded is said here

TIMEOUT_SECONDS = 30


class DataError(RuntimeError):
    """The data cannot be had or is not what it should be; the message says what to do about it."""


class Split(NamedTuple):
    """Images `(N, C, H, W)`, uint8, and labels `(N,)`, int64."""

    images: Tensor
    labels: Tensor


class Source(Protocol):
    """See `vae_lightning.data` for the contract."""

    class_names: Sequence[str]

    def prepare(self, root: Path) -> None: ...

    def load(self, root: Path, train: bool) -> Split: ...


def data_folder(root: str | os.PathLike[str] | None) -> Path:
    """The folder of all data sets: `root`, else `$VAE_DATA_DIR`, else `data/` in the checkout or the current folder."""
    if root is None:
        checkout = Path(__file__).parents[2]
        default = checkout if (checkout / "pyproject.toml").is_file() else Path()
        root = os.environ.get("VAE_DATA_DIR") or default / "data"
    return Path(root).expanduser()


class TorchvisionMNIST:
    """A torchvision data set of MNIST's kind: MNIST, FashionMNIST, KMNIST.

    File names, checksums and the layout `<root>/<dataset>/raw/*.gz` are torchvision's, root being the folder of all
    data sets. Files that are there are read where they lie (a read-only folder is enough); the others are downloaded,
    by one process at a time.

    Args:
        dataset: the class's name in `torchvision.datasets`.
        class_names: one name per label; by default torchvision's.
        mirrors: base addresses, tried in order; by default torchvision's.

    Raises:
        ValueError: for a data set that torchvision does not have, or has in another format.
    """

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
        """Downloads what is missing or damaged.

        Raises:
            DataError: when a file cannot be had.
        """
        folder = root / self.subfolder
        if all(self._intact(folder / file) for file in self.needed()):
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".download.lock"):
                for file in self.needed():
                    if not self._intact(folder / file):  # another process may have fetched it while this one waited
                        self._download(folder / file)
        except OSError as error:
            raise DataError(self._explain(folder, [f"to write: {error.strerror or error}"])) from error

    def load(self, root: Path, train: bool) -> Split:
        """The 60,000 training or 10,000 test images.

        Raises:
            DataError: for a file that is missing, damaged or of another shape than its header says.
        """
        folder = root / self.subfolder
        prefix = "train" if train else "t10k"
        images = self._read(folder / f"{prefix}-images-idx3-ubyte.gz", dimensions=3)
        labels = self._read(folder / f"{prefix}-labels-idx1-ubyte.gz", dimensions=1)
        if len(images) != len(labels):
            raise DataError(f"{folder}: {len(images)} {prefix} images, but {len(labels)} labels")
        return Split(images.unsqueeze(1), labels.long())

    def needed(self) -> list[str]:
        """Names of the files that `load` reads."""
        return list(self.checksums)

    def _intact(self, path: Path) -> bool:
        return path.is_file() and _md5(path.read_bytes()) == self.checksums[path.name]

    def _download(self, path: Path) -> None:
        if path.exists():
            log.warning("%s does not match its checksum; downloading it anew", path)
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
        try:
            packed = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path}: {error.strerror}") from error
        if (found := _md5(packed)) != self.checksums[path.name]:
            raise DataError(f"{path} is damaged: its MD5 is {found}, not {self.checksums[path.name]}. Delete it.")
        return _parse_idx(gzip.decompress(packed), dimensions, path)


class TestImagesOnly(TorchvisionMNIST):
    """The test files alone, for quick work on real data: their first images for training, the rest for testing.

    Args:
        dataset: see `TorchvisionMNIST`.
        train_size: how many images are for training.
        class_names: see `TorchvisionMNIST`.
        mirrors: see `TorchvisionMNIST`.

    Raises:
        ValueError: when no image would be left for training or testing.
    """

    __test__ = False  # not a test case, whatever its name says

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
        images, labels = super().load(root, train=False)
        part = slice(None, self.train_size) if train else slice(self.train_size, None)
        return Split(images[part], labels[part])


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, requests.HTTPError):
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return f"no answer in {TIMEOUT_SECONDS} s"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return "the file that came is not the one expected (another checksum)"


def _parse_idx(content: bytes, dimensions: int, path: Path) -> Tensor:
    """IDX: two zero bytes, 8 for unsigned bytes, the number of dimensions, their big-endian sizes, the data."""
    header = 4 + 4 * dimensions
    sizes = np.frombuffer(content[4:header], ">u4").tolist()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - header != np.prod(sizes, dtype=np.int64):
        raise DataError(f"{path}: not a file of unsigned bytes with {dimensions} dimensions in IDX format")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).reshape(sizes).copy())
