"""Runs in one archive, with a digest of every file: to be kept, or given to somebody else, who can unpack it safely."""

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import UsageError
from .claiming import state_of
from .names import short_path
from .run import Run

__all__ = ["LIMIT", "pack", "unpack"]

DIGESTS = "digests.json"
LIMIT = 20 * 2**30  # bytes that an archive may unpack to
FILES = 200_000
MANIFEST = 100 * 2**20  # bytes
PIECE = 2**20


def pack(runs: Sequence[Run], archive: str | Path) -> Path:
    """Writes runs to an archive, a compressed tar file, under their paths from the folder that they have in common.

    It begins with `digests.json`, the SHA-256 of every file. Partial files and locks are left out.

    Args:
        runs: at least one; none that is being trained.
        archive: to write; it must not exist.

    Returns:
        The archive's path.

    Raises:
        UsageError: if there is no run, one is being trained or has a link in it, or the archive exists.
        OSError: if it cannot be written.
    """
    place = Path(archive)
    if not runs:
        raise UsageError("there is no run to pack")
    if place.exists():
        raise UsageError(f"{place}: exists already")
    for run in runs:
        if state_of(run) == "running":
            raise UsageError(f"{short_path(run.folder)}: is being trained")
    folders = [run.folder.resolve() for run in runs]
    above = Path(os.path.commonpath([folder.parent for folder in folders]))
    paths = [path for folder in folders for path in sorted(folder.rglob("*"))]
    if linked := next((path for path in paths if path.is_symlink()), None):
        hint = "replace it by what it points to, or pack a copy made with cp -rL"
        raise UsageError(f"{short_path(linked)}: is a link, which an archive does not follow; {hint}")
    files = {
        path.relative_to(above).as_posix(): path
        for path in paths
        if path.is_file() and path.suffix not in (".partial", ".lock")
    }
    digests = {name: _digest(path) for name, path in files.items()}
    partial = place.with_name(place.name + ".partial")
    try:
        with tarfile.open(partial, "w:gz", compresslevel=3) as packed:
            _add(packed, DIGESTS, io.BytesIO(json.dumps(digests, indent=1).encode()))
            for name, path in files.items():
                with path.open("rb") as file:
                    _add(packed, name, file)
        partial.replace(place)
    finally:
        partial.unlink(missing_ok=True)
    return place


def unpack(archive: str | Path, folder: str | Path = ".", limit: int = LIMIT) -> list[Run]:
    """Writes the runs of an archive to a folder, if all of its files are what their digests say.

    An archive may come from anybody: it is refused, and nothing is written, if it has anything but plain files with
    paths below the folder, or more than it should. What the runs themselves may contain, `load_run` checks.

    Args:
        archive: made by `pack`.
        folder: to write to; none of the archive's runs may be in it.
        limit: bytes, at most, that it may unpack to.

    Returns:
        The runs, in the archive's order.

    Raises:
        UsageError: if it is not such an archive, or a run is there already.
        OSError: if it cannot be read or the runs cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".unpacking-") as temporary:
        try:
            with tarfile.open(archive, "r:gz") as packed:
                names = _extract(packed, Path(temporary), limit)
        except (tarfile.TarError, EOFError, ValueError, RecursionError, OverflowError) as error:
            raise UsageError(f"{archive}: is not an archive of runs: {error}") from error
        except OSError as error:
            if error.errno is None:  # of the compression
                raise UsageError(f"{archive}: is not an archive of runs: {error}") from error
            raise
        folders = _folders(names)
        for each in folders:
            if (target / each).exists():
                raise UsageError(f"{short_path(target / each)}: is there already; unpack into another folder")
        for each in folders:
            (target / each).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(Path(temporary) / each, target / each)
    return [Run(target / each) for each in folders]


def _add(packed: tarfile.TarFile, name: str, file: Any) -> None:
    """Adds a file without its owner, its permissions and its time, so that the same files make the same archive."""
    found = tarfile.TarInfo(name)
    found.size = file.seek(0, os.SEEK_END)
    file.seek(0)
    packed.addfile(found, file)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _extract(packed: tarfile.TarFile, folder: Path, limit: int) -> list[str]:
    """Writes the files of an archive, and returns their names; `ValueError` where anything is not as it should be."""
    first = packed.next()
    if first is None or first.name != DIGESTS or not first.isreg() or first.size > MANIFEST:
        raise ValueError(f"it does not begin with {DIGESTS}")
    digests = json.loads(_opened(packed, first).read())
    if not isinstance(digests, dict) or len(digests) > FILES:
        raise ValueError(f"{DIGESTS} is not a list of files")
    total = 0
    names: list[str] = []
    while (member := packed.next()) is not None:
        path = PurePosixPath(member.name)
        if not member.isreg() or path.is_absolute() or not path.parts or {".", ".."} & set(member.name.split("/")):
            raise ValueError(f"{member.name[:200]!r} is not a plain file below the folder")
        if (folder / path).exists() or member.name not in digests:
            raise ValueError(f"{member.name[:200]!r} is there twice, or not in {DIGESTS}")
        total += member.size
        if total > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with _opened(packed, member) as source, (folder / path).open("xb") as file:
            while piece := source.read(PIECE):
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != digests[member.name]:
            raise ValueError(f"{member.name[:200]!r} is not what its digest says")
        names.append(member.name)
    if missing := digests.keys() - set(names):
        raise ValueError(f"{min(missing)[:200]!r} is missing")
    return names


def _opened(packed: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    return packed.extractfile(member)


def _folders(names: Sequence[str]) -> list[PurePosixPath]:
    """The folders of the runs, told by their configurations, which all files must be in."""
    paths = [PurePosixPath(name) for name in names]
    # A run that failed early has its configuration in `.hydra` alone.
    folders = [path.parents[path.parent.name == ".hydra"] for path in paths if path.name == "config.yaml"]
    found = [folder for folder in dict.fromkeys(folders) if not set(folder.parents) & set(folders)]
    for path in paths:
        if not any(folder in path.parents for folder in found if folder.parts):
            raise UsageError(f"{str(path)[:200]!r} belongs to no run")
    return found
