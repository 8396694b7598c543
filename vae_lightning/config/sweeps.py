"""Hydra's callback around a run or a sweep: no folder is used twice unasked, and a sweep's folder is remembered.

Hydra writes to a folder before a job can look into it, so whether it holds a run already is looked up here. The
comparison of a sweep is not made by `on_multirun_end`: Hydra does not call that after a failed job, and what goes wrong
in it would not fail the process.
"""

import sys
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.override_parser.types import ValueType
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from ..runs import Run, sweep_overrides, sweep_runs
from ..runs.sweep import SWEEPER
from .search import go_on

__all__ = ["Folders"]


class Folders(Callback):
    """Called in the process that launches a run or a sweep, whichever processes run its jobs.

    What it refuses ends the process with exit code 2. (Hydra turns exceptions of callbacks into warnings.)

    Attributes:
        sweep: folder of the sweep that this process has started; None if it has not.
        run: likewise of a single run.
    """

    sweep: ClassVar[Path | None] = None
    run: ClassVar[Path | None] = None

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.run.dir)
        if Run(folder).config_file.exists() and not config.resume:
            _refuse(f"hydra.run.dir={folder}: holds a run already; resume=true goes on with it")
        Folders.run = folder

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        if sweep_runs(folder) and not config.resume:
            _refuse(f"hydra.sweep.dir={folder}: holds runs already; resume=true goes on with them")
        for override in sweep_overrides(config.hydra).values():
            # What a glob stands for is known to Hydra only; it has no value twice.
            if override.is_discrete_sweep() and override.value_type is not ValueType.GLOB_CHOICE_SWEEP:
                value, count = Counter(override.sweep_string_iterator()).most_common(1)[0]
                if count > 1:
                    _refuse(f"{override.input_line}: {value} stands there {count} times; each run needs its own")
        Folders.sweep = folder
        # Not every sweeper keeps what was swept, and the names of runs depend on it.
        with suppress(OSError):  # which Hydra will find as well, and tell
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")
        if SWEEPER in str(config.hydra.sweeper._target_):
            go_on(config.hydra.sweeper)


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(2)
