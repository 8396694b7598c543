"""A user's mistake, told in a line or two: the option, its value, what is allowed."""

import difflib
import re
from collections.abc import Iterable

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException

__all__ = ["UsageError", "exit_code", "explain"]


class UsageError(ValueError):
    """The command or the configuration is wrong; the message says what is allowed."""


def exit_code(error: BaseException) -> int:
    """2 for a wrong command or configuration, 1 for a failure of what it asked for."""
    return 2 if isinstance(error, UsageError | HydraException | OmegaConfBaseException) else 1


def explain(error: BaseException) -> str:
    """An exception as a message of one or two lines."""
    cause = _configuration_error(error)
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error)
    if isinstance(error, InstantiationException):
        return _failed_call(error)
    if isinstance(cause, ConfigKeyError) and cause.full_key:
        return _unknown_option(cause)
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} has no value: give one with {cause.full_key}=VALUE"
    if cause is not None and cause.full_key:
        return f"{cause.full_key}: {_first_line(cause)}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, UsageError | HydraException | OmegaConfBaseException):
        return "; ".join(line.strip() for line in str(error).splitlines()[:3] if line.strip())
    return str(error).strip() or type(error).__name__


def _configuration_error(error: BaseException | None) -> OmegaConfBaseException | None:
    while error is not None and not isinstance(error, OmegaConfBaseException):
        error = error.__cause__ if isinstance(error, ConfigCompositionException) else None
    return error


def _unknown_option(error: ConfigKeyError) -> str:
    option = str(error.full_key)
    parent, _, key = option.rpartition(".")
    node = error.parent_node
    keys = [str(known) for known in node] if isinstance(node, DictConfig) else []
    place = f"{parent} has" if parent else "there are"
    return f"{option}: no such option.{_suggestion(key, keys, parent)}\n{place}: {', '.join(sorted(keys))}"


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    options = sorted(option for option in error.options or [] if not option.startswith("_"))
    if not group:
        return f"{choice}: no such configuration file"
    if not options:
        return f"{group}={choice}: there is no group {group}"
    return f"{group}={choice}: no such choice.{_suggestion(choice, options)}\n{group} can be: {', '.join(options)}"


def _suggestion(word: str, known: Iterable[str], parent: str = "") -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f" Did you mean {parent + '.' if parent else ''}{close[0]}?" if close else ""


def _failed_call(error: InstantiationException) -> str:
    """From Hydra's account of a failed constructor call: the node and what the constructor said."""
    text = str(error)
    node = match[1] if (match := re.search(r"full_key: (.+)", text)) else ""
    cause = error.__cause__
    said = _first_line(cause) if cause is not None else _first_line(error)
    if cause is not None and (match := re.search(r"unexpected keyword argument '(\w+)'", said)):
        return f"{node}.{match[1]}: no such option of {_target(text)}"
    if cause is not None and (match := re.search(r"missing .* required .* arguments?: (.+)", said)):
        return f"{node}: {_target(text)} also needs {match[1]}"
    if cause is not None and (match := re.match(r"(\w+): (.*got .*)", said)):  # our own constructors say it so
        return f"{node}.{match[1]}: {match[2]}"
    return f"{node}: {said}"


def _target(text: str) -> str:
    return match[1] if (match := re.search(r"call to (?:target )?'([^']+)'", text)) else "its class"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
