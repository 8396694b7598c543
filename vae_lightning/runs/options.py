"""The options of resolved configurations as flat dictionaries: those that differ, and those without any effect."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from typing import Any

from .run import Run
from .versions import upgraded

__all__ = ["differing_options", "is_incidental", "options"]

# Location of the data, and display.
INCIDENTAL = ("data.root", "callbacks.*.cache", "trainer.enable_progress_bar", "trainer.enable_model_summary")
# A run's name and location, how it was started, and its loggers.
NOT_COMPARED = ("study", "kind", "run_dir", "resume", "choices", "logger")
# Follow from `data.image_shape`, `model.latent_dim`, the likelihood and `model.labels`.
FOLLOWING = ("model.encoder.image_shape", "model.decoder.image_shape", "model.decoder.latent_dim")

# Nodes whose options are set by another group.
FILLED = {"engine.": "trainer", "model.lr_scheduler.": "schedule", "model.encoder.posterior.": "model/posterior"}


def options(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of a configuration by their dotted keys; a list is a leaf.

    >>> options({"seed": 0, "model": {"latent_dim": 2, "prior": {}}})
    {'seed': 0, 'model.latent_dim': 2}
    """
    found: dict[str, Any] = {}
    for key, child in node.items():
        found |= options(child, f"{prefix}{key}.") if isinstance(child, Mapping) else {f"{prefix}{key}": child}
    return found


def is_incidental(option: str) -> bool:
    """Returns whether an option concerns only the location of data or display, so that no result depends on it."""
    return any(fnmatch(option, pattern) for pattern in INCIDENTAL)


def differing_options(runs: Sequence[Run]) -> list[str]:
    """Returns the keys of the options that differ between runs, in the order of their configurations, the seed last.

    If a node's class differs, its options are not comparable and are replaced by its group (`model/objective`), or by
    the class if no group's choice differs (`model.prior._target_`). Options that follow from another are omitted, such
    as `model.encoder.latent_dim` with `model.latent_dim`, or `data.name` with `data`. Runs without a readable
    configuration are ignored.
    """
    readable = [run for run in runs if run.has_config]
    configurations = [upgraded(run.config) for run in readable]
    flat = [_compared(configuration) for configuration in configurations]
    values = {option: [found.get(option) for found in flat] for option in dict.fromkeys(o for f in flat for o in f)}
    differing = {option: found for option, found in values.items() if any(value != found[0] for value in found)}
    choices = [run.choices for run in readable]
    nodes = [option.removesuffix("._target_") for option in differing if option.endswith("._target_")]
    keys: dict[str, None] = {}
    for option, found in differing.items():
        node = next((node for node in nodes if option.startswith(f"{node}.")), None)
        if node is not None:
            keys[_differing_group(node, choices) or f"{node}._target_"] = None
        elif (group := _differing_group(option, choices)) and _follows(option, found, [c.get(group) for c in choices]):
            keys[group] = None
        elif not _repeats(option, differing):
            keys[option] = None
    return sorted(keys, key=lambda key: key == "seed")


def _compared(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The options in which runs may differ; this package's callbacks do not affect training and are omitted."""
    callbacks = configuration.get("callbacks")
    own = {
        name
        for name, node in (callbacks.items() if isinstance(callbacks, Mapping) else ())
        if isinstance(node, Mapping) and str(node.get("_target_")).startswith("vae_lightning.")
    }
    return {
        option: value
        for option, value in options(configuration).items()
        if (parts := option.split("."))[0] not in NOT_COMPARED
        and not (parts[0] == "callbacks" and len(parts) > 1 and parts[1] in own)
        and option not in FOLLOWING
        and not is_incidental(option)
    }


def _differing_group(option: str, choices: Sequence[Mapping[str, str]]) -> str | None:
    """The innermost enclosing group whose choice differs between runs."""
    group = next((group for node, group in FILLED.items() if f"{option}.".startswith(node)), None)
    parts = group.split("/") if group else option.split(".")
    for depth in range(len(parts), 0, -1):
        group = "/".join(parts[:depth])
        if len({str(choice.get(group)) for choice in choices}) > 1 and all(group in choice for choice in choices):
            return group
    return None


def _follows(option: str, values: Sequence[Any], choices: Sequence[str | None]) -> bool:
    """Returns whether a value is determined by its group's choice; never for numbers, which may have been set."""
    texts = option.startswith(tuple(FILLED)) or not any(isinstance(value, int | float) for value in values)
    return texts and len({(choice, str(value)) for choice, value in zip(choices, values, strict=True)}) == len(
        set(choices)
    )


def _repeats(option: str, differing: Mapping[str, Sequence[Any]]) -> bool:
    """Returns whether an option of the same name, further up, has the same value in each run (an interpolation)."""
    depth, name = option.count("."), option.rpartition(".")[2]
    return any(
        other.rpartition(".")[2] == name and other.count(".") < depth and found == differing[option]
        for other, found in differing.items()
    )
