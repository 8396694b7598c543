"""Images decoded once, then mapped into memory: neither memory nor the start of later runs grows with their number.

A folder of the cache holds the training and the test images of a source, each as one file of uint8 numbers. It is
named after the source, so that there is one for each place and choice of options, and rewritten when the source
changes. Several processes may ask for it at once.
"""

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from ..errors import DataError
from .sources import Split, cache_folder

__all__ = ["Decoded", "MakeWriter", "Writer", "decoded"]

log = logging.getLogger(__name__)

VERSION = 2  # of the format, and of how images are decoded and split
PARTS = ("train", "test")

MakeWriter = Callable[[Sequence[str]], "Writer"]


class Decoded(NamedTuple):
    """The images of a source, mapped from the cache.

    Attributes:
        train: training images.
        test: test images.
        class_names: in the order of the labels; `()` without labels.
        left_out: what was left out of them and why; empty if nothing was.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    left_out: str


class Writer:
    """Writes the images of a source, one by one, to a folder of the cache.

    Args:
        folder: an empty folder.
        class_names: in the order of the labels; `()` without labels.

    Attributes:
        left_out: see `Decoded`; to be set before the end.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self.folder = folder
        self.class_names = tuple(class_names)
        self.left_out = ""
        self.shape: tuple[int, ...] | None = None
        self.counts = dict.fromkeys(PARTS, 0)
        self._stack = ExitStack()

    def __enter__(self) -> "Writer":
        self._files: dict[str, IO[bytes]] = {}
        for part in PARTS:
            for kind in ("images", "labels"):
                opened = (self.folder / f"{part}.{kind}").open("wb", buffering=2**20)
                self._files[f"{part}.{kind}"] = self._stack.enter_context(opened)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, train: bool, image: NDArray[np.uint8], label: int | None = None) -> None:
        """Appends an image.

        Args:
            train: whether it is a training image, or else a test image.
            image: `(C, H, W)`, of the same shape as the others.
            label: its class; None if there are no class names.
        """
        part = PARTS[0] if train else PARTS[1]
        self.shape = self.shape or image.shape
        if image.shape != self.shape:
            raise DataError(f"images: must have one shape, got {list(self.shape)} and {list(image.shape)}")
        self._files[f"{part}.images"].write(image.tobytes())
        if label is not None:
            self._files[f"{part}.labels"].write(np.int64(label).tobytes())
        self.counts[part] += 1

    def finish(self, signature: str) -> None:
        """Writes what is needed to read the images back."""
        about = {
            "signature": signature,
            "shape": self.shape,
            "counts": self.counts,
            "class_names": self.class_names,
            "left_out": self.left_out,
        }
        (self.folder / "about.json").write_text(json.dumps(about))


def decoded(
    name: str, place: Any, signature: Any, write: Callable[[MakeWriter], Writer],
    cache: str | None = None,
) -> Decoded:  # fmt: skip
    """Returns the images of a source, decoded now or before.

    Args:
        name: of the source, for the name of the folder.
        place: what is decoded and how, for example a path and options; compared as text.
        signature: changes when the images change, for example the files' sizes and times; compared as text.
        write: makes a `Writer`, by the function it is given, from the class names, and returns it with all images
            written.
        cache: see `vae_lightning.data.sources.cache_folder`.

    Raises:
        DataError: if the cache cannot be written, or there are no training or no test images.
    """
    signature = sha256(repr((VERSION, signature)).encode()).hexdigest()
    folder = cache_folder(cache) / "images" / f"{name}-{sha256(repr(place).encode()).hexdigest()[:16]}"
    if (found := _read(folder, signature)) is None:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{folder}.lock"):
                found = _read(folder, signature)  # another process may have written it meanwhile
                if found is None:
                    _write(folder, signature, write)
                    found = _read(folder, signature)
        except OSError as error:
            raise DataError(
                f"cannot keep the decoded images in {folder}: {error.strerror or error}\n"
                "Another place can be named by data.source.cache=FOLDER or the environment variable VAE_CACHE_DIR."
            ) from error
    assert found is not None
    return found


def _write(folder: Path, signature: str, write: Callable[[MakeWriter], Writer]) -> None:
    making = Path(f"{folder}.partial")
    shutil.rmtree(making, ignore_errors=True)  # of a process that was killed
    making.mkdir()
    try:
        writer = write(lambda class_names: Writer(making, class_names))
        for part, count in writer.counts.items():
            if not count:
                raise DataError(f"there is no image to {part} on")
        writer.finish(signature)
        if folder.exists():  # of images that have changed; a run that has it mapped keeps it
            shutil.rmtree(folder)
        making.rename(folder)
    finally:
        shutil.rmtree(making, ignore_errors=True)


def _read(folder: Path, signature: str) -> Decoded | None:
    """The images in a folder of the cache; None if there are none, they are damaged or are no longer the source's."""
    try:
        about = json.loads((folder / "about.json").read_text())
        if about["signature"] != signature:
            return None
        class_names, shape = tuple(map(str, about["class_names"])), tuple(map(int, about["shape"]))
        train, test = (_split(folder, part, int(about["counts"][part]), shape, bool(class_names)) for part in PARTS)
        left_out = str(about.get("left_out", ""))  # older versions did not keep it
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return Decoded(train, test, class_names, left_out)


def _split(folder: Path, part: str, count: int, shape: tuple[int, ...], labelled: bool) -> Split:
    images = _mapped(folder / f"{part}.images", torch.uint8, (count, *shape))
    return Split(images, _mapped(folder / f"{part}.labels", torch.int64, (count,)) if labelled else None)


def _mapped(path: Path, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    numbers = int(np.prod(shape, dtype=np.int64))
    if path.stat().st_size != numbers * dtype.itemsize:
        raise ValueError(f"{path}: of another size")
    return torch.from_file(str(path), shared=False, size=numbers, dtype=dtype).view(shape)
