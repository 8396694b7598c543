"""The command line of `vae-train` and `python -m vae_lightning.cli`, for a single run or a sweep.

This module imports neither torch nor Lightning until a job starts training, so that help, `--cfg` and errors in the
command appear at once.
"""

import gc
import logging
import os
import shlex
import signal
import sys
import threading
import traceback
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .again import OPTION
from .again import main as repeat_main
from .config import CONFIGURATION, check
from .config.compose import of_groups, without_hydra
from .config.messages import exit_code, explain, explain_failure
from .config.schema import register
from .config.sweeps import Folders
from .engine.processes import is_connection_loss, is_member, join_jobs, no_more_jobs
from .engine.signals import Interrupted
from .errors import DataError
from .runs import Run, forget_paths, is_claimed, score, short_path, sweep_runs, swept_keys

__all__ = ["JobError", "main"]

log = logging.getLogger(__name__)

WANTS_TRACEBACK = "VAE_WANTS_TRACEBACK"
FLAGS_WITH_VALUE = {
    "--cfg", "-c", "--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--package", "-p",
}  # fmt: skip

register()
if sys.version_info >= (3, 14):
    # argparse now checks the help of options, of which Hydra has one that is no string (facebookresearch/hydra#3121).
    setattr(ArgumentParser, "_check_help", lambda self, action: None)  # noqa: B010


class JobError(RuntimeError):
    """Raised when a job of a sweep has failed and printed its message; the other jobs continue.

    Args:
        run: name of the job's run.
        code: exit code of the process.
    """

    def __init__(self, run: str, code: int) -> None:
        super().__init__(run, code)
        self.code = code


def main() -> None:
    """Runs the command line's run or sweep; exits with 0, with 1 for a failure, or with 2 for a usage error."""
    if is_member():
        sys.exit(_take_part())
    if any(argument.partition("=")[0] == OPTION for argument in sys.argv[1:]):
        repeat_main()
        return
    try:
        sys.exit(_lead())
    finally:
        no_more_jobs()


def _quiet_about_files(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    return lambda thread: None if isinstance(thread.exc_value, OSError) else otherwise(thread)


def _take_part() -> int:
    """Joins the jobs of the first process, which alone writes files and prints."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        join_jobs(lambda folder: _execute(OmegaConf.create(Run(folder).config), Run(folder)))
    except Exception as error:
        if not is_connection_loss(error):
            print(explain(error), file=sys.stderr)
        return 1
    return 0


def _lead() -> int:
    # Hydra would print its own error message and exit with 1; with this variable it raises. The user's value is saved
    # for the jobs, which may run in other processes.
    os.environ.setdefault(WANTS_TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # No tracebacks if the log, or TensorBoard's events, written by a thread, cannot be written.
    logging.raiseExceptions = False
    threading.excepthook = _quiet_about_files(threading.excepthook)
    sys.argv[1:] = _flags_first(sys.argv[1:])
    signal.signal(signal.SIGTERM, _terminate)
    code = 0
    try:
        _job()
    except JobError as error:
        code = error.code
    except (Interrupted, KeyboardInterrupt) as stop:
        print(_how_to_go_on(), file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else 130  # type: ignore[return-value]
    except Exception as error:
        # No job has started: a job reports its own errors.
        Folders.remove_unstarted()
        code = max(exit_code(error), 1 if isinstance(error, OSError) else 2)
        if os.environ[WANTS_TRACEBACK] == "1":
            traceback.print_exc()
        elif isinstance(error, OSError) and code == 1:
            hint = "Choose another folder with hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER for a sweep."
            print(f"cannot write the output folder: {explain(error)}\n{hint}", file=sys.stderr)
        else:
            print(explain(error), file=sys.stderr)
    if Folders.sweep is not None:
        with suppress(OSError):
            forget_paths(Folders.sweep / "multirun.yaml")
    if Folders.sweep is not None and sweep_runs(Folders.sweep):
        from .report import compare, print_comparison

        comparison = compare(Folders.sweep)
        print_comparison(comparison)
        code = max(code, 1 if comparison.unfinished else 0)
    return code


def _flags_first(arguments: Sequence[str]) -> list[str]:
    """Moves flags, with their values, before the overrides, as Hydra requires.

    >>> _flags_first(["seed=0,1", "-m", "model=own", "--config-dir", "mine"])
    ['-m', '--config-dir', 'mine', 'seed=0,1', 'model=own']
    """
    flags, others = [], []
    left = list(arguments)
    while left:
        argument = left.pop(0)
        if argument.startswith("-"):
            flags.append(argument)
            if argument in FLAGS_WITH_VALUE and left:
                flags.append(left.pop(0))
        else:
            others.append(argument)
    return flags + others


def _terminate(number: int, frame: Any) -> None:
    """Handles SIGTERM while this process is not training, for example when a sweep's jobs run elsewhere."""
    raise Interrupted(128 + number)


def _how_to_go_on() -> str:
    if Folders.sweep or Folders.run:
        option = "hydra.sweep.dir" if Folders.sweep else "hydra.run.dir"
        own = ("hydra.sweep.dir=", "hydra.run.dir=", "resume=")
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith(own)]
        folder = short_path(Folders.sweep or Folders.run or Path())
        return f"To resume:  vae-train {shlex.join([*arguments, f'{option}={folder}', 'resume=true'])}"
    return "interrupted"


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="train")
def _job(config: DictConfig) -> float:
    run = Run(Path(HydraConfig.get().runtime.output_dir))
    sweeps = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        hydra_config = HydraConfig.get()
        asked: Any = OmegaConf.to_container(hydra_config.overrides.task)  # an interpolation in it is the user's text
        config = without_hydra(config, of_groups(hydra_config.runtime.choices, asked))
        check(config)
        # In a sweep, only a requeued job finds its folder in use.
        config.resume = config.resume or (sweeps and run.config_file.is_file())
        metrics = _execute(config, run, swept_keys(Path(HydraConfig.get().sweep.dir)) if sweeps else [])
        if config.trainer.get("fast_dev_run") and not sweeps:
            Folders.remove_unused()
        return score(metrics)
    except Interrupted:
        kept = "its state has been saved" if run.checkpoint_file.is_file() else "it had no checkpoint yet"
        log.error("interrupted %s: %s", run.name, kept)
        raise
    except Exception as error:
        code, message = exit_code(error), explain_failure(error, short_path(run.folder), config.data.get("batch_size"))
        log.error("%s", f"{run.name}: {message}" if sweeps else message)
        if Folders.made and _came_to_nothing(error, run):
            Folders.remove_unused()
        elif not (Run(run.folder).finished or is_claimed(run)):  # neither one that was not resumed nor another's
            _keep_traceback(run, message, shown=code == 1 and not type(error).__module__.startswith(__package__))
        if code == 1 and run.checkpoint_file.is_file():
            log.error("The last good state is in %s; resume=true continues from there", short_path(run.checkpoint_file))
        if os.environ.get(WANTS_TRACEBACK) == "1":
            traceback.print_exc()
    finally:
        if sweeps:
            _free_memory()
    # Outside the handler, so that the error that Hydra holds does not keep the job's model and data alive. SystemExit
    # is not an Exception, so Hydra prints nothing more.
    raise JobError(run.name, code) if sweeps else SystemExit(code)


def _came_to_nothing(error: Exception, run: Run) -> bool:
    """Returns whether a run failed for a wrong option or want of data, with nothing to show for it."""
    if run.checkpoint_file.exists() or run.figures.exists():
        return False
    if exit_code(error) == 2:
        return True
    return isinstance(error, DataError)


def _keep_traceback(run: Run, message: str, shown: bool) -> None:
    with suppress(OSError):  # the disk may be full
        run.error_file.write_text(f"{traceback.format_exc()}\n{message.splitlines()[0]}\n")
        if shown:
            log.error("The traceback is in %s", short_path(run.error_file))


def _free_memory() -> None:
    """Frees this job's memory, including the device's, for the next job of a sweep."""
    if torch := sys.modules.get("torch"):
        gc.collect()
        torch.compiler.reset()  # torch.compile stops compiling beyond a limit
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _execute(config: DictConfig, run: Run, swept: Sequence[str] = ()) -> dict[str, Any]:
    from .training import execute

    return execute(config, run, swept).metrics


if __name__ == "__main__":
    # Not this module's `main`: objects sent to other processes must be importable by name.
    from vae_lightning.cli import main as installed

    installed()
