"""Progress of what takes long after training: bars wherever training shows one, log lines elsewhere."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

from pytorch_lightning import Trainer

if TYPE_CHECKING or not find_spec("ipywidgets"):
    from tqdm import tqdm
else:  # draws its bars with ipywidgets in a notebook
    from tqdm.auto import tqdm

__all__ = ["PATIENCE", "Progress", "duration", "estimate"]

log = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds that may pass in silence


class Progress:
    """Shows the steps of what a callback does: on bars that vanish, or in a log line for each that took over 2 s.

    Args:
        trainer: whose progress bar, if it has one, says that bars are wanted.
        done: what has happened to a step when it is over, such as "measured".
    """

    def __init__(self, trainer: Trainer, done: str) -> None:
        self.bars = trainer.progress_bar_callback is not None
        self.done = done

    @contextmanager
    def step(self, name: str, total: float | None = None) -> Iterator[Callable[[float], object]]:
        """A context for one step; yields a function that advances its bar.

        Args:
            name: of the step.
            total: what the advances add up to; None where nothing can be said of the progress within the step.
        """
        started = time.perf_counter()
        shape = "{desc} …" if total is None else "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        with tqdm(desc=name, total=total, bar_format=shape, leave=False, disable=not self.bars) as bar:
            yield bar.update
        seconds = time.perf_counter() - started
        if seconds > PATIENCE and not self.bars:
            log.info("%-10s %s in %s", self.done, name, duration(seconds))


def estimate(work: Callable[[], object], times: float) -> float:
    """Returns the seconds that calling something so many times will take: by the median of calls for 2 s at most.

    The first of several calls, which warms up, does not count.
    """
    taken: list[float] = []
    while not taken or sum(taken) < min(2.0, 0.05 * times * taken[-1]):
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return times * median(taken[1:] or taken)


def duration(seconds: float) -> str:
    """Returns a duration as text.

    >>> duration(7.26), duration(100), duration(7300)
    ('7.3 s', '1.7 min', '2.0 h')
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
