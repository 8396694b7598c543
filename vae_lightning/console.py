"""What the console shows besides progress bars: log lines, and no library warnings that users cannot act on."""

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["above_bars", "printing", "quiet"]


@contextmanager
def printing() -> Iterator[None]:
    """A context that prints log lines to standard output if logging is not configured, as in a notebook."""
    ours = logging.getLogger(__package__)
    if ours.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(sys.stdout), ours.level
    handler.setFormatter(logging.Formatter("%(message)s"))
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def above_bars(shown: bool) -> AbstractContextManager[None]:
    """A context in which log lines go above progress bars, if any are shown, instead of through them."""
    ours = logging.getLogger(__package__)
    return logging_redirect_tqdm([ours if ours.handlers else logging.getLogger()]) if shown else nullcontext()


@contextmanager
def quiet() -> Iterator[None]:
    """A context that silences library warnings that users cannot act on."""
    lightning = ("pytorch_lightning.utilities.rank_zero", "pytorch_lightning.accelerators.cuda", "lightning_fabric")
    names = (*lightning, "tensorboard", "alembic")
    found = {logging.getLogger(name): logging.WARNING for name in names}
    found[logging.getLogger("pytorch_lightning.loggers.mlflow")] = logging.ERROR  # it warns that it makes an experiment
    levels = {logger: logger.level for logger in found}
    for logger, level in found.items():
        logger.setLevel(level)
    try:
        with warnings.catch_warnings():
            for text in [
                ".*does not have many workers.*",
                ".*GPU available but not used.*",  # trainer=cpu says so
                ".*smaller than the logging interval.*",
                ".*isinstance.treespec.*",
                ".*Total length of `list`.*",
                ".*your dataloader is not resumable.*",
                ".*Checkpoint directory .* exists and is not empty.*",
                ".*will save all extracted features in buffer.*",
                ".*Grad strides do not match bucket view strides.*",
                ".*lr scheduler dict contains the key.s. .'reduce_on_plateau'.*",
                ".*sync_dist=True.*when logging on epoch level.*",
            ]:
                warnings.filterwarnings("ignore", text)
            yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)
