"""A Hydra callback that guards the output folder against accidental reuse and records it.

Hydra writes to a folder before the job starts, so the check for an existing run is made here. Sweeps are not compared
in `on_multirun_end`, because Hydra does not call it after a failed job, and errors in it would not fail the process.
"""

import shutil
import sys
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..errors import UsageError
from ..runs import Run, short_path, sweep_overrides, sweep_runs
from ..runs.resuming import check_same
from ..runs.sweep import SWEEPER, job_overrides
from .compose import without_hydra
from .search import go_on

__all__ = ["Folders"]


class Folders(Callback):
    """Checks and records output folders, in the process that launches the run or sweep.

    Errors end the process with exit code 2, because Hydra turns exceptions in callbacks into warnings.

    Attributes:
        sweep: folder of the sweep started by this process, or None.
        run: folder of the single run started by this process, or None.
        made: the folders that are made for it, the run's first; none if it existed already.
    """

    sweep: ClassVar[Path | None] = None
    run: ClassVar[Path | None] = None
    made: ClassVar[tuple[Path, ...]] = ()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.run.dir)
        if Run(folder).config_file.exists() and not config.resume:
            _refuse(f"hydra.run.dir={folder}: already holds a run; resume=true resumes it")
        Folders.run = folder
        Folders.made = tuple(path for path in (folder, *folder.parents) if not path.exists())

    @classmethod
    def remove_unused(cls) -> None:
        """Removes the folder of a single run that came to nothing, and the empty ones around it, if made for it."""
        if cls.made:
            shutil.rmtree(cls.made[0], ignore_errors=True)
        for folder in cls.made[1:]:
            with suppress(OSError):  # another run is in it
                folder.rmdir()

    @classmethod
    def remove_unstarted(cls) -> None:
        """Removes the folder of a sweep of which no job has started, if only `multirun.yaml` is in it."""
        with suppress(OSError):
            if cls.sweep and [path.name for path in cls.sweep.iterdir()] == ["multirun.yaml"]:
                shutil.rmtree(cls.sweep)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir)
        runs = sweep_runs(folder)
        if runs and not config.resume:
            _refuse(f"hydra.sweep.dir={folder}: already holds runs; resume=true resumes them")
        for override in sweep_overrides(config.hydra).values():
            if override.is_discrete_sweep():
                _refuse_values(override)
        if SWEEPER in str(config.hydra.sweeper._target_) and not config.resume:
            _refuse_search_without_validation(config)
        _refuse_other_options(config, runs)
        if config.resume and not runs:
            print(f"resuming   nothing: {short_path(folder)} has no runs, and all are trained from the beginning")
        Folders.sweep = folder
        # Not every sweeper saves the swept options, which the names of runs depend on.
        with suppress(OSError):  # Hydra will hit and report the same error
            folder.mkdir(parents=True, exist_ok=True)
            OmegaConf.save(config, folder / "multirun.yaml")
        if SWEEPER in str(config.hydra.sweeper._target_):
            go_on(config.hydra.sweeper)


def _refuse_values(override: Override) -> None:
    """Ends a sweep over no values, of which Hydra would say nothing, or over equal ones, whose runs share a name."""
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        choices = GlobalHydra.instance().config_loader().get_group_options(override.key_or_group)
        values = override.value().filter(choices)  # type: ignore[union-attr]
        advice = "glob is for the choices of a group, of which it must match some"
    else:
        values, advice = list(override.sweep_string_iterator()), "give at least one"
    if not values:
        _refuse(f"{override.input_line}: has no values; {advice}")
    value, count = Counter(values).most_common(1)[0]
    if count > 1:
        _refuse(f"{override.input_line}: {value} appears {count} times; every value must be different")


def _refuse_search_without_validation(config: DictConfig) -> None:
    """A search would choose by the test images, whose metrics are then no longer those of images not seen before."""
    searched = {override.lstrip("+") for override in sweep_overrides(config.hydra)}
    if config.data.get("validation_size") == 0 and not searched & {"data", "data.validation_size"}:
        _refuse(
            "data.validation_size=0: a search would choose the model by the test images; hold out images to choose by, "
            "such as data.validation_size=1000"
        )


def _refuse_other_options(config: DictConfig, runs: Iterable[Run]) -> None:
    """Ends a sweep that would train its missing runs with other options than those that it has.

    Of runs that were started with the same options, but for what is swept, one is checked.
    """
    loader = GlobalHydra.instance().config_loader()
    swept, checked = sweep_overrides(config.hydra), set()
    for run in runs:
        task = run.hydra("overrides").get("task") or []
        shared = frozenset(text for text in task if text.partition("=")[0].lstrip("+") not in swept)
        if run.has_config and task and shared not in checked:
            checked.add(shared)
            try:
                job = loader.load_sweep_config(config, job_overrides(config.hydra, run))
                check_same(without_hydra(job, {}), run)
            except UsageError as error:
                _refuse(str(error))
            except (HydraException, OmegaConfBaseException):
                continue  # the run's job says what is wrong


def _refuse(message: str) -> None:
    print(message, file=sys.stderr)
    raise SystemExit(2)
