"""A folder of image files: flat, with one folder per class, or with `train/` and `test/` folders of either kind."""

import logging
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from ..errors import DataError
from .decoded_cache import Decoded, MakeWriter, Writer, decoded
from .pictures import FORMATS, Fitting, PictureError, is_grey, open_picture, pixels, upright_size
from .sources import Split, held_out

__all__ = ["Folder"]

log = logging.getLogger(__name__)

SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
LARGEST = 128  # pixels on a side that are kept without a word
USUAL = 64  # pixels on a side where the files differ
LOOKED_AT = 1000  # headers that tell size and colour
TO_FOLDER = "is a link to a folder"
NAMED = 10  # broken files in a message


class File(NamedTuple):
    """An image file.

    Attributes:
        name: its path below the folder, with slashes.
        size: bytes.
        changed: nanoseconds, as the file system tells.
        refused: why it is not read; empty if it is.
    """

    name: str
    size: int
    changed: int
    refused: str = ""


class Item(NamedTuple):
    """A file and its place in the data set."""

    file: File
    train: bool
    label: int | None


class Folder:
    """Images in a folder: PNG, JPEG, WebP, GIF, BMP and TIFF.

    The folder is flat (no labels), or has one folder per class (with any folders below it), or has the folders `train`
    and `test` (or `val`), capital or not, both of either kind. Images are decoded once, see
    `vae_lightning.data.decoded_cache`; the cache is rewritten when a file's name, size or time has changed.

    Args:
        path: the folder; a name such as `2024` may come as a number.
        size: pixels of a side, or `[height, width]`; by default that of the files if all have the same of at most 128
            pixels, else 64.
        channels: 1 for grey, 3 for colour; by default 3 if a file is in colour. (Size and channels are told from at
            most 1,000 files, evenly spread.)
        fit: how pictures of another shape are fitted; see `vae_lightning.data.pictures.pixels`.
        background: grey level, from 0 to 255, behind transparent pictures and beside padded ones.
        test_share: share of the images that is held out for testing, without `train` and `test` folders.
        split_seed: seed of their selection.
        on_error: `fail`, or `skip` to leave out files that cannot be read.
        cache: folder of decoded images; by default `$VAE_CACHE_DIR`, else `vae_lightning` in the user's cache folder.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        path: str | int,
        size: int | Sequence[int] | None = None,
        channels: int | None = None,
        fit: Fitting = "crop",
        background: int = 255,
        test_share: float = 0.1,
        split_seed: int = 0,
        on_error: Literal["fail", "skip"] = "fail",
        cache: str | None = None,
    ) -> None:
        sides = [size] if isinstance(size, int) else size
        if sides is not None and not (len(sides) in (1, 2) and all(isinstance(n, int) and n >= 1 for n in sides)):
            raise ValueError(f"size: must be a number of pixels, or [height, width], got {size}")
        if channels not in (None, 1, 3):
            raise ValueError(f"channels: must be 1 or 3, got {channels}")
        if fit not in ("crop", "pad"):
            raise ValueError(f"fit: must be crop or pad, got {fit!r}")
        if not 0 <= background <= 255:
            raise ValueError(f"background: must be a grey level from 0 to 255, got {background}")
        if not 0 < test_share < 1:
            raise ValueError(f"test_share: must be a number between 0 and 1, got {test_share}")
        if on_error not in ("fail", "skip"):
            raise ValueError(f"on_error: must be fail or skip, got {on_error!r}")
        self.path = Path(str(path)).expanduser()
        self.size = None if sides is None else (sides[0], sides[-1])
        self.channels = channels
        self.fit: Fitting = fit
        self.background = background
        self.test_share = test_share
        self.split_seed = split_seed
        self.on_error = on_error
        self.cache = cache

    @cached_property
    def image_shape(self) -> tuple[int, int, int]:
        """`(C, H, W)`, told from the files' headers.

        Raises:
            DataError: if the folder is not there or holds no image.
        """
        if self.size and self.channels:
            return (self.channels, *self.size)
        found, step = [], -(-len(self.files) // LOOKED_AT)
        for file in self.files[::step]:
            try:
                if not file.refused:
                    with open_picture(self.path / file.name) as picture:
                        found.append((upright_size(picture), is_grey(picture)))
            except PictureError:
                continue  # named when it is to be decoded
        sizes = {size for size, _ in found}
        size = self.size
        if size is None:
            (same,) = sizes if len(sizes) == 1 else [(USUAL, USUAL)]
            size = same if max(same) <= LARGEST else (USUAL, USUAL)
            if len(sizes) > 1 or size != same:
                log.info("data       %s: sizes differ or are large; fitted to %d × %d pixels", self.path, *size)
        return (self.channels or (1 if all(grey for _, grey in found) else 3), *size)

    @cached_property
    def files(self) -> list[File]:
        """The image files, by name.

        Raises:
            DataError: see `image_shape`.
        """
        if not self.path.is_dir():
            problem = "is not a folder" if self.path.exists() else "there is no such folder"
            raise DataError(f"data.source.path={self.path}: {problem}")
        found = sorted(_walk(str(self.path), "", self.path.resolve()))
        if closed := [file for file in found if file.name.endswith("/")]:
            listed = ", ".join(f"{_readable(file.name)}: {file.refused}" for file in closed[:NAMED])
            if self.on_error == "fail":
                raise DataError(f"data.source.path={self.path}: {listed}; data.source.on_error=skip leaves it out")
            log.warning("data       %s: left out: %s", self.path, listed)
            found = [file for file in found if file not in closed]
        if not found:
            kinds = ", ".join(FORMATS)
            raise DataError(f"data.source.path={self.path}: no images in it; known are {kinds}, by their file names")
        return found

    @cached_property
    def _images(self) -> Decoded:
        options = (str(self.path.resolve()), self.image_shape, self.fit, self.background)
        split = (self.test_share, self.split_seed, self.on_error)
        name = "".join(c if c.isalnum() else "-" for c in self.path.resolve().name) or "folder"
        assert self.class_names is not None  # known before the list of files is forgotten
        images = decoded(name, (*options, *split), self.files, self._write, self.cache)
        del self.files, self._layout
        if images.left_out:
            log.warning("data       %s: left out: %s", self.path, images.left_out)
        return images

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes' folders, in order; `()` for a flat folder."""
        return self._layout[1]

    def prepare(self, root: Path) -> None:
        """Decodes the images, if they have not been before.

        Raises:
            DataError: for files that cannot be read, a folder of another layout, or a cache that cannot be written.
        """
        assert self._images

    def load(self, root: Path, train: bool) -> Split:
        return self._images.train if train else self._images.test

    @cached_property
    def _layout(self) -> tuple[list[Item], tuple[str, ...]]:
        """Which images are for testing, and of which classes they are."""
        split = [(top.lower(), *below) for top, *below in (file.name.split("/", 1) for file in self.files)]
        tops = {top for top, *below in split if below}
        test = next((name for name in ("test", "val") if name in tops), None)
        if "train" in tops and test:
            if others := sorted({top for top, *_ in split} - {"train", test}):
                log.warning("data       %s: only train and %s are used, not %s", self.path, test, ", ".join(others))
            chosen = [(file, top == "train", below[0]) for file, (top, *below) in zip(self.files, split, strict=True)
                      if below and top in ("train", test)]  # fmt: skip
        else:
            place = f"data.source.path={self.path}"
            for_testing = held_out(len(self.files), self.test_share, self.split_seed, place).tolist()
            chosen = [(file, not held, file.name) for file, held in zip(self.files, for_testing, strict=True)]
        folders = [below.rpartition("/")[0].split("/")[0] for *_, below in chosen]
        names = sorted(set(folders))
        if names == [""]:
            return [Item(file, train, None) for file, train, _ in chosen], ()
        if names[0] == "":
            (stray, *_) = (file.name for (file, *_), folder in zip(chosen, folders, strict=True) if not folder)
            problem = "images both beside and inside the classes' folders, such as"
            raise DataError(f"data.source.path={self.path}: {problem} {_readable(stray)}")
        labels = {name: label for label, name in enumerate(names)}
        items = [Item(file, train, labels[top]) for (file, train, _), top in zip(chosen, folders, strict=True)]
        return items, tuple(map(_readable, names))

    def _write(self, make_writer: MakeWriter) -> Writer:
        items, names = self._layout
        log.info("data       reading %d images of %s, once …", len(items), self.path)
        broken: list[str] = []
        with ThreadPoolExecutor() as threads, make_writer(names) as images:
            left = iter(tqdm(items, desc="reading images", unit="", disable=None, leave=False))
            # In parts, so that what is decoded but not yet written stays small.
            while part := list(islice(left, 256)):
                for item, found in zip(part, threads.map(self._pixels, part), strict=True):
                    if isinstance(found, str):
                        broken.append(f"{_readable(item.file.name)} {found}")
                    elif not broken or self.on_error == "skip":
                        images.add(item.train, found, item.label)
        if broken:
            more = [f"… and {len(broken) - NAMED} more"] if len(broken) > NAMED else []
            listed = "\n  ".join([f"{len(broken)} of {len(items)} images cannot be read:", *broken[:NAMED], *more])
            if self.on_error == "fail" or len(broken) == len(items):
                hint = "" if len(broken) == len(items) else "\ndata.source.on_error=skip leaves them out."
                raise DataError(f"data.source.path={self.path}: {listed}{hint}")
            images.left_out = listed
        return images

    def _pixels(self, item: Item) -> NDArray[np.uint8] | str:
        """The image in a file, or why it cannot be read."""
        if item.file.refused:
            return item.file.refused
        channels, *size = self.image_shape
        try:
            with open_picture(self.path / item.file.name) as picture:
                return pixels(picture, (size[0], size[1]), channels, self.fit, self.background)
        except PictureError as error:
            return str(error)


def _readable(name: str) -> str:
    """A file's name as text; what is not UTF-8 in it, as of archives from other systems, becomes `�`."""
    return os.fsencode(name).decode("utf-8", "replace")


def _walk(folder: str, prefix: str, root: Path) -> Iterator[File]:
    """The image files below a folder, with a prefix to their names, and the folders that cannot be read, with a slash.

    Links are followed to files below the root only.
    """
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        yield File(prefix or "./", 0, 0, str(error.strerror).lower())
        return
    for entry in entries:
        name, image = prefix + entry.name, entry.name.lower().endswith(SUFFIXES)
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path, f"{name}/", root)
        elif image or entry.is_symlink():
            file = _file(entry, name, root)
            if image or file.refused == TO_FOLDER:
                yield file


def _file(entry: os.DirEntry[str], name: str, root: Path) -> File:
    try:
        if entry.is_symlink() and (refused := _refused(entry.path, root)):
            return File(name, 0, 0, refused)
        status = entry.stat()
    except OSError as error:
        return File(name, 0, 0, str(error.strerror).lower())
    if not stat.S_ISREG(status.st_mode):
        return File(name, 0, 0, "is not a file")
    # Told now and not when it is decoded, so that the cache is rewritten once it may be read.
    refused = "" if os.access(entry.path, os.R_OK) else "permission denied"
    return File(name, status.st_size, status.st_mtime_ns, refused)


def _refused(link: str, root: Path) -> str:
    target = Path(os.path.realpath(link))
    if target.is_dir():
        return TO_FOLDER
    if not target.is_relative_to(root):
        return "is a link out of the folder"
    return "" if target.is_file() else "is not a file"
