"""One process at a time trains a run: a lock on its folder, which ends with the process, however that ends."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import UsageError
from .names import short_path
from .run import Run

__all__ = ["claimed", "is_claimed", "state_of"]

WAIT = 1.0  # seconds, for a process that only looks whether a run is claimed


@contextmanager
def claimed(run: Run) -> Iterator[None]:
    """A context in which no other process trains a run, whose folder must exist.

    Raises:
        UsageError: if another process has claimed it.
    """
    lock = _lock(run)
    try:
        lock.acquire(timeout=WAIT)
    except Timeout:
        raise UsageError(f"{short_path(run.folder)}: another process is training this run") from None
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()
        lock.release()


def is_claimed(run: Run) -> bool:
    """Returns whether a process is training a run."""
    lock = _lock(run)
    if not Path(lock.lock_file).is_file():
        return False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:  # of another user's run
        return False
    lock.release()
    return False


def state_of(run: Run) -> str:
    """Returns `running` while a process trains a run, otherwise `finished`, `failed`, or `interrupted`.

    One that was interrupted has said nothing of why, and can be resumed.
    """
    if is_claimed(run):
        return "running"
    if run.finished:
        return "finished"
    return "failed" if run.error_file.is_file() or run.metrics_file.is_file() else "interrupted"


def _lock(run: Run) -> FileLock:
    return FileLock(run.folder / ".training.lock", is_singleton=False)
