"""Hydra's callback that remembers where a sweep goes, so that its comparison can be made when it has ended.

Hydra's own `on_multirun_end` is not called after a failed job, and what goes wrong in it does not fail the process.
"""

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

__all__ = ["RememberSweep"]


class RememberSweep(Callback):
    """Called in the process that launches the sweep, whichever processes run its jobs.

    Attributes:
        folder: of the sweep that this process has started; None if it has not.
    """

    folder: ClassVar[Path | None] = None

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        RememberSweep.folder = Path(config.hydra.sweep.dir)
