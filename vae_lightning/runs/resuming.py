"""Resuming a run on disk: checks that its options are the same, or extend it, and finds the step to resume at."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UsageError
from .names import short_path
from .options import is_incidental, options
from .run import Run
from .versions import upgraded

__all__ = ["check_same", "steps_taken_at"]

log = logging.getLogger(__name__)

# Most important first, because the message names the first difference.
NODES = ("seed", "data", "model", "trainer", "engine", "callbacks", "logger")
LENGTHS = ("trainer.max_epochs", "trainer.max_steps")  # may grow: the run is extended


def steps_taken_at(checkpoint: Path | None) -> int:
    """Returns the number of optimizer steps taken before a checkpoint; 0 without one.

    Raises:
        UsageError: if the checkpoint cannot be read.
    """
    import torch

    if checkpoint is None:
        return 0
    try:
        steps = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    except Exception as error:  # a damaged file may raise anything
        hint = "remove the file to start this run from the beginning"
        raise UsageError(f"{short_path(checkpoint)}: cannot be read ({type(error).__name__}); {hint}") from error
    log.info("resuming   after step %d", steps)
    return int(steps)


def check_same(config: DictConfig, run: Run) -> bool:
    """Checks that a run is resumed with the options that it was started with.

    Options that concern only the location of data or display may differ, and `trainer.max_epochs` and
    `trainer.max_steps` may be larger.

    Args:
        config: the requested configuration, with or without interpolations.
        run: the run on disk; it has a `config.yaml`.

    Returns:
        Whether the run is extended, that is, trained for longer than originally requested.

    Raises:
        UsageError: naming the first option that differs, or the older version that started the run.
    """
    place = short_path(run.folder)
    version = run.version
    damaged = f"{place}: config.yaml is damaged; remove the folder to start this run from the beginning"
    if not run.has_config:
        raise UsageError(damaged)
    now = OmegaConf.to_container(OmegaConf.merge(config, {"run_dir": "."}), resolve=True)
    assert isinstance(now, dict)
    # The choices are written last: without them, the file has been cut off.
    if missing := {node for node in (*NODES, "choices") if node in now and node not in run.config}:
        if (version and not version.startswith("0.1.")) or not missing <= {"engine", "choices"}:
            raise UsageError(damaged)
        name = f"vae-lightning {version}" if version else "an older version of vae-lightning"
        raise UsageError(f"{place}: was started by {name}; finish it with that version, or train in another folder")
    shape = run.config.get("data", {}).get("image_shape")
    if shape and now["data"].get("image_shape") is None:  # then the images say it
        told = {"data": {"image_shape": shape}, "run_dir": "."}
        now = OmegaConf.to_container(OmegaConf.merge(config, told), resolve=True)
        assert isinstance(now, dict)
    before, after = (_resumed(found) for found in (run.config, now))
    extended = False
    for option in sorted({*before, *after}, key=lambda option: (NODES.index(option.partition(".")[0]), option)):
        was, is_now = before.get(option), after.get(option)
        if str(was) == str(is_now):
            continue
        if option in LENGTHS:
            _check_longer(option, was, is_now, run, place)
            extended = True
        else:
            raise UsageError(_different(option, was, is_now, place))
    return extended


def _resumed(config: Mapping[Any, Any]) -> dict[str, Any]:
    found = options(upgraded({key: config.get(key) for key in NODES}))
    return {option: value for option, value in found.items() if not is_incidental(option)}


def _check_longer(option: str, was: Any, is_now: Any, run: Run, place: str) -> None:
    def length(value: Any) -> float:
        return float("inf") if value in (None, -1) else float(value)

    trained = run.metrics.get(option.replace("trainer.max_", "")) if run.finished else None
    if length(is_now) < length(was):
        unit = option.rpartition("_")[2]
        done = f"has trained {trained} {unit}" if trained is not None else f"was started with {option}={was}"
        raise UsageError(f"{option}={is_now}: {place} {done}; a run can be extended, but not shortened")


def _different(option: str, was: Any, is_now: Any, place: str) -> str:
    advice = "or train in another folder"
    if is_now is None:
        return f"{option}: {place} was started with {option}={was}. Set it to resume this run, {advice}"
    if was is None:
        return f"{option}={is_now}: {place} was started without it. Leave it out to resume this run, {advice}"
    return f"{option}={is_now}: {place} was started with {option}={was}. Set it back to resume this run, {advice}"
