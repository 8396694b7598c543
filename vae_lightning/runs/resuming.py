"""Going on with a run that is on disk already: whether it is the same run, and after which step."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..errors import UsageError
from .names import short_path
from .run import Run

__all__ = ["check_same", "steps_taken_at"]

log = logging.getLogger(__name__)


def steps_taken_at(checkpoint: Path | None) -> int:
    """Optimizer steps before a checkpoint.

    Raises:
        UsageError: if it cannot be read.
    """
    import torch

    if checkpoint is None:
        return 0
    try:
        steps = torch.load(checkpoint, map_location="cpu", weights_only=True)["global_step"]
    except Exception as error:  # a damaged file leads to many of them
        hint = "remove the file to start this run anew"
        raise UsageError(f"{short_path(checkpoint)}: cannot be read ({type(error).__name__}); {hint}") from error
    log.info("resumes    after step %d", steps)
    return int(steps)


def check_same(config: DictConfig, run: Run) -> None:
    """Refuses to go on with a run under another configuration.

    Raises:
        UsageError: naming the first option that differs in anything but where data lie and what is shown.
    """
    before, now = OmegaConf.create(run.config), OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    for key in ("seed", "data", "model", "trainer"):
        for option in sorted(
            {*_leaves(before, key), *_leaves(now, key)} - {"trainer.enable_progress_bar", "data.root"}
        ):
            was, is_now = (str(OmegaConf.select(node, option)) for node in (before, now))
            if was != is_now:
                place = short_path(run.folder)
                raise UsageError(
                    f"{option}={is_now}: {place} was started with {option}={was}; only the same run resumes"
                )


def _leaves(node: Any, key: str) -> list[str]:
    value = OmegaConf.select(node, key)
    if not isinstance(value, DictConfig):
        return [key]
    return [leaf for name in value for leaf in _leaves(node, f"{key}.{name!s}")]
