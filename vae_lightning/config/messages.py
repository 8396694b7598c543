"""A user's mistake, told in a line or two: the option, its value, what is allowed."""

import difflib
import logging
import re
from collections.abc import Callable, Iterable

from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

from ..errors import UsageError

__all__ = ["exit_code", "explain", "explain_failure", "only_below_error", "unknown_option"]


# Choices of Hydra's that come with an optional dependency, and what that is called in pyproject.toml.
EXTRAS = {
    "joblib": "parallel", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "optuna": "search",
}  # fmt: skip


def exit_code(error: BaseException) -> int:
    """2 for a wrong command or configuration, 1 for a failure of what it asked for."""
    return 2 if isinstance(error, UsageError | HydraException | OmegaConfBaseException) else 1


def explain(error: BaseException) -> str:
    """An exception as a message of one or two lines."""
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if isinstance(error, OverrideParseException):
        return f"{error.override!r}: cannot be read; options are given as KEY=VALUE"
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error)
    if isinstance(error, InstantiationException):
        return _failed_call(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        keys = cause.parent_node if isinstance(cause.parent_node, DictConfig) else []
        return unknown_option(str(cause.full_key), [str(key) for key in keys])
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} has no value: give one with {cause.full_key}=VALUE"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {_lines(cause)[0]}"
    if match := re.match(r"Ambiguous value for argument '(.+)'", str(error)):
        return f"{match[1]}: several values are a sweep, which needs --multirun; a list is written [1,2]"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return "; ".join(_lines(error)[:3])
    return str(error).strip() or type(error).__name__


def explain_failure(error: BaseException, folder: str, batch_size: int) -> str:
    """What a job says of an exception: as `explain`, and of what the machine could not do, what to do about it.

    Args:
        error: of any kind.
        folder: the run's.
        batch_size: of the training.
    """
    chain = [error]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    for cause in chain:
        if _is_out_of_memory(cause):
            advice = "a smaller one, trainer.precision=bf16-mixed or data.resident=false needs less"
            return f"out of memory with data.batch_size={batch_size}: {advice}"
        if match := re.search(r"DataLoader worker \(pid\(?s?\)? (\d+)", str(cause)):
            return f"data.num_workers: worker process {match[1]} has died; data.num_workers=0 does without"
        if isinstance(cause, OSError) and cause.strerror and not cause.filename:
            return f"{folder}: {cause.strerror}"
    return explain(error)


def _is_out_of_memory(error: BaseException) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # PyTorch's; it is not imported for this
        or "can't allocate memory" in str(error)
    )


def unknown_option(option: str, known: Iterable[str]) -> str:
    """What to say of an option that is not there.

    Args:
        option: the whole key, dotted.
        known: names that its node has.
    """
    parent, _, key = option.rpartition(".")
    known = sorted(name for name in known if not name.startswith("_"))
    close = difflib.get_close_matches(key, known, n=1)
    suggestion = f" Did you mean {parent + '.' if parent else ''}{close[0]}?" if close else ""
    place = f"{parent} has" if parent else "there are"
    return f"{option}: no such option.{suggestion}\n{place} {', '.join(known)}"


def only_below_error() -> Callable[[logging.LogRecord], bool]:
    """A filter for the handler that writes to standard output; errors go to standard error."""
    return lambda record: record.levelno < logging.ERROR


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = sorted(option for option in error.options or [] if not option.startswith("_"))
    if choice in EXTRAS and group.startswith("hydra/"):
        return f"{group}={choice}: is not installed; pip install vae-lightning[{EXTRAS[choice]}]"
    if not group:
        return f"{choice}: no such configuration file"
    if not options:
        return f"{group}={choice}: there is no group {group}"
    close = difflib.get_close_matches(choice, options, n=1)
    suggestion = f" Did you mean {group}={close[0]}?" if close else ""
    return f"{group}={choice}: no such choice.{suggestion}\n{group} can be {', '.join(options)}"


def _failed_call(error: InstantiationException) -> str:
    """From Hydra's account of a failed constructor call: the node and what the constructor said."""
    node = match[1] if (match := re.search(r"full_key: (.+)", str(error))) else ""
    said = _lines(error.__cause__ or error)
    if match := re.match(r"(\w+): (.*got .*)", said[0]):  # our own constructors say it so
        return f"{node}.{match[1]}: {match[2]}"
    if match := re.search(r"missing .* required .* arguments?: (.+)", said[0]):
        return f"{node} also needs {match[1]}"
    return f"{node}: {' '.join(said[:2])}"


def _lines(error: BaseException) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
