"""Error messages for users: one or two lines with the option, its value, what is allowed and what to do."""

import difflib
import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError

from ..errors import DataError, UsageError, first_line, lines_of
from .files import choices_with
from .signatures import parameters

__all__ = ["exit_code", "explain", "explain_failure", "leaves", "only_below_error", "unknown_option", "usage_errors"]


# Hydra choices that need an optional dependency, and its extra in pyproject.toml.
EXTRAS = {
    "joblib": "parallel", "submitit_slurm": "slurm", "submitit_local": "slurm", "ray": "ray", "optuna": "search",
}  # fmt: skip

# Groups whose choices fill another node.
FILLS = {"schedule": "model.lr_scheduler", "model.posterior": "model.encoder.posterior"}

# Groups that conf/train.yaml lists after `experiment`, because their options come before an experiment's.
READ_LAST = ("recipe", "debug")

# Errors that libraries identify only by their wording. A test provokes each and fails if the wording changes.
HYDRA_NODE = re.compile(r"full_key: (.+)")
HYDRA_TARGET = re.compile(r"target '([^']+)'")
HYDRA_FOLDER = re.compile(r"path=file://(.+)")
HYDRA_TWICE = re.compile(r"Multiple values for (\S+)\.")
HYDRA_NOT_OVERRIDDEN = re.compile(r"(?:In '([^']+)': )?Could not override '([^']+)'")
HYDRA_NO_CHOICE = "Config group override must be a string or a list"
TORCH_WORKER_DIED = re.compile(r"DataLoader worker \(pid\(?s?\)? (\d+)")
TORCH_CPU_MEMORY = re.compile(r"can't allocate memory")

OTHER_SIDES = (
    "\nmodel=mlp takes images of any size; data.source.size=[HEIGHT,WIDTH] fits those of data=folder to another, "
    "and data.image_shape those of data=torchvision and data=huggingface"
)
SURE = 0.9  # similarity above which a name counts as a misspelling without further checks
SUGGESTIONS = 3


def exit_code(error: BaseException) -> int:
    """Returns 2 for a wrong command or configuration, 1 for any other failure."""
    return 2 if isinstance(error, UsageError | HydraException | OmegaConfBaseException) else 1


@contextmanager
def usage_errors() -> Iterator[None]:
    """A context in which an error of Hydra or OmegaConf becomes a `UsageError` with its message."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UsageError(explain(error, ())) from error


def explain(error: BaseException, arguments: Sequence[str] | None = None) -> str:
    """Returns a message of one or two lines for an exception.

    Args:
        error: of any kind.
        arguments: the overrides that led to it, whose values the message quotes; by default the command line's.
    """
    overrides = _parsed(sys.argv[1:] if arguments is None else arguments)
    cause = error.__cause__ if isinstance(error, ConfigCompositionException) else error
    if isinstance(error, OverrideParseException):
        return _unread(str(error.override))
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _unknown_choice(error)
    if isinstance(error, InstantiationException):
        return _failed_call(error)
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return _unknown_key(str(cause.full_key), cause.parent_node, overrides)
    if isinstance(cause, MissingMandatoryValue):
        return f"{cause.full_key} has no value: set one with {cause.full_key}=VALUE"
    if isinstance(cause, OmegaConfBaseException) and cause.full_key:
        return f"{cause.full_key}: {first_line(cause)}"
    if isinstance(error, ConfigCompositionException):
        for override in overrides:
            if override.is_sweep_override() and str(override.input_line) in str(error):
                return f"{override.input_line}: several values are a sweep, which needs --multirun; a list is [1,2]"
        if match := HYDRA_TWICE.match(str(error)):
            return f"{match[1]}: is chosen already; choose another with {match[1]}=CHOICE, without +"
        if match := HYDRA_NOT_OVERRIDDEN.match(str(error)):
            return _not_overridden(*match.groups(""))
    if isinstance(error, ValueError) and str(error).startswith(HYDRA_NO_CHOICE):
        given = [override for override in overrides if isinstance(override.value(), int | float | None)]
        refused = [override for override in given if str(error).endswith(type(override.value()).__name__)]
        if refused and not refused[0].key_or_group:
            return f"{refused[0].input_line}: an override is KEY=VALUE"
        return f"{refused[0].input_line if refused else error}: must be a choice, or a list such as [tensorboard,csv]"
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        return f"{error.problem_mark.name}, line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return "; ".join(lines_of(error)[:3])
    return str(error).strip() or type(error).__name__


def explain_failure(error: BaseException, folder: str, batch_size: int) -> str:
    """Returns a job's message for an exception: as `explain`, with advice if a resource ran out.

    Args:
        error: of any kind.
        folder: the run's folder.
        batch_size: the training batch size.
    """
    chain = [error]
    while chain[-1].__cause__:
        chain.append(chain[-1].__cause__)
    for cause in chain:
        if _is_out_of_memory(cause):
            advice = "try a smaller one, trainer.precision=bf16-mixed or data.resident=false"
            return f"out of memory with data.batch_size={batch_size}: {advice}"
        if match := TORCH_WORKER_DIED.search(str(cause)):
            return f"worker process {match[1]} died; data.num_workers=0 loads the images in the main process"
        if isinstance(cause, EOFError | ConnectionError) and _is_of_a_worker(cause):  # it died while handing over
            return "a worker process died; data.num_workers=0 loads the images in the main process"
        if isinstance(cause, OSError) and cause.strerror and not cause.filename and not isinstance(error, UsageError):
            return f"{folder}: {cause.strerror}"
    return explain(error)


def _is_of_a_worker(error: BaseException) -> bool:
    """Returns whether an error was raised while receiving images from a worker process."""
    files = (frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__))
    return any(Path(file).parts[-3:-1] == ("torch", "multiprocessing") for file in files)


def _is_out_of_memory(error: BaseException) -> bool:
    torch = sys.modules.get("torch")  # if torch is not imported, there can be no such error
    return (
        isinstance(error, MemoryError)
        or (torch is not None and isinstance(error, torch.OutOfMemoryError))
        or (isinstance(error, RuntimeError) and TORCH_CPU_MEMORY.search(str(error)) is not None)
    )


def unknown_option(option: str, known: Iterable[str], below: Iterable[str] = ()) -> str:
    """Returns a message for an option that does not exist.

    Args:
        option: its full dotted key.
        known: names of the options of its node.
        below: full keys of the options below the node, which are suggested if their last part matches.
    """
    parent, _, key = option.rpartition(".")
    known = sorted(name for name in known if not name.startswith("_"))
    meant = _suggestions(key, {f"{parent}.{name}" if parent else name: name for name in known}, below)
    suggestion = f" Did you mean {_either(meant)}?" if meant else ""
    place = f"{parent} has" if parent else "the options are"
    return f"{option}: no such option.{suggestion}\n{place} {', '.join(known) or 'no options'}"


def only_below_error() -> Callable[[logging.LogRecord], bool]:
    """Returns a logging filter that keeps errors off standard output; they go to standard error."""
    return lambda record: record.levelno < logging.ERROR


def _suggestions(key: str, siblings: dict[str, str], below: Iterable[str]) -> list[str]:
    """Full keys of options whose name equals or resembles the given one."""
    leaves = {leaf: leaf.rpartition(".")[2] for leaf in below}
    if exact := [leaf for leaf, name in leaves.items() if name == key]:
        return exact[:SUGGESTIONS]
    if close := difflib.get_close_matches(key, siblings.values(), n=1):
        return [option for option, name in siblings.items() if name == close[0]]
    close = difflib.get_close_matches(key, set(leaves.values()), n=1, cutoff=0.75)
    return [leaf for leaf, name in leaves.items() if name in close][:SUGGESTIONS]


def _either(options: Sequence[str]) -> str:
    *others, last = options
    return f"{', '.join(others)} or {last}" if others else last


def _unknown_key(option: str, node: object, overrides: Iterable[Override]) -> str:
    """Returns a message for a key that is not in the composed configuration."""
    if not isinstance(node, DictConfig):
        return unknown_option(option, [])
    if group := next((group for group in FILLS if f"{option}.".startswith(f"{group}.")), None):
        choice = f"{group.replace('.', '/')}=CHOICE"
        return f"{option}: is a group; choose with {choice}, and set the options of the choice in {FILLS[group]}"
    parent, _, key = option.rpartition(".")
    known = [str(name) for name in node]
    unset = not known and "." in parent  # null, which may become a mapping; a group may be empty, too
    # An obvious misspelling is reported at once; anything else needs the class to be imported.
    if unset or (not difflib.get_close_matches(key, known, cutoff=SURE) and _accepts(node, key)):
        value = next((_value(override) for override in overrides if override.key_or_group == option), "VALUE")
        return f"{option}: is not set in the configuration; add it with +{option}={value}"
    has_it = choices_with(option)[:SUGGESTIONS]
    hint = f"; choose {_either(has_it)}, which sets it" if has_it else ""
    return unknown_option(option, known, leaves(node, parent)) + hint


def _not_overridden(place: str, group: str) -> str:
    """Returns a message for a choice of a group that the defaults lack, or read after the file that chooses it."""
    parent, _, name = group.rpartition("/")
    if parent:
        return (
            f"{group}: the chosen {parent} has no group {name}; choose another {parent}, or add {name} to the defaults "
            "of its file"
        )
    if group in READ_LAST:
        return f"{place}: cannot choose {group}, which is read after it; choose it on the command line, {group}=CHOICE"
    return f"{place or 'defaults'}: there is no group {group} to choose from"


def _accepts(node: DictConfig, name: str) -> bool:
    """Returns whether a node's class has an option with this name."""
    target = OmegaConf.select(node, "_target_")
    try:
        return target is not None and name in parameters(str(target))
    except (ImportError, AttributeError, TypeError, ValueError):
        return False


def leaves(node: DictConfig, key: str = "") -> Iterator[str]:
    """Yields full keys of the options below a node, except interpolations."""
    name: Any
    for name in node:
        if str(name).startswith("_") or OmegaConf.is_interpolation(node, name) or (name == "hydra" and not key):
            continue
        whole = f"{key}.{name}" if key else str(name)
        if not OmegaConf.is_missing(node, name) and isinstance(node[name], DictConfig):
            yield from leaves(node[name], whole)
        else:
            yield whole


def _parsed(arguments: Iterable[str]) -> list[Override]:
    """Returns the overrides among the arguments of a command."""
    parser, overrides = OverridesParser.create(), []
    for argument in arguments:
        if not argument.startswith("-"):
            try:
                overrides.append(parser.parse_override(argument))
            except HydraException:  # reported by Hydra itself
                continue
    return overrides


def _value(override: Override) -> str:
    """Returns an override's value as typed."""
    return str(override.input_line).partition("=")[2]


def _unread(override: str) -> str:
    """Returns a message for an override that Hydra cannot parse."""
    key, equals, value = override.partition("=")
    if not equals or " " in key or value.startswith(tuple("[{'\"")):
        return f"{override!r}: cannot be read; options are given as KEY=VALUE"
    quoted = "{}='{}'".format(key, value.replace("'", "\\'"))
    for_shell = re.sub(r'([\\"$`])', r"\\\1", quoted)
    return f'{override}: has characters that must be quoted for Hydra, and again for the shell: "{for_shell}"'


def _unknown_choice(error: MissingConfigException) -> str:
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    # Hydra names no alternatives for a group of which several can be chosen.
    folders = [Path(folder, group) for folder in HYDRA_FOLDER.findall(str(error))]
    found = error.options or {file.stem for folder in folders for file in folder.glob("*.yaml")}
    options = sorted(option for option in found if not option.startswith("_"))
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
    """Returns a message for a failed constructor call: the node, and the constructor's own message."""
    node = match[1] if (match := HYDRA_NODE.search(str(error))) else ""
    if isinstance(error.__cause__, DataError):
        return str(error.__cause__)
    said = lines_of(error.__cause__ or error)
    if match := re.match(r"(\w+): (.*got .*)", said[0]):  # the format of this project's own errors
        target = named[1] if (named := HYDRA_TARGET.search(str(error))) else ""
        hint = OTHER_SIDES if node.startswith("model") and match[1] == "image_shape" else ""
        return f"{node}.{_within_parts(target, match[1])}{match[1]}: {match[2]}{hint}"
    return f"{node}: {' '.join(said[:2])}"


def _within_parts(target: str, option: str) -> str:
    """Returns `posterior.` for an option that an encoder does not have itself: it hands on what its posterior says."""
    try:
        known = parameters(target)
    except (ImportError, AttributeError, TypeError, ValueError):
        return ""
    return "posterior." if "posterior" in known and option not in known else ""
