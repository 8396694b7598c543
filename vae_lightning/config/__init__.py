"""The configuration: its schema, its composition, messages about mistakes in it, Hydra's callbacks around a sweep."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from .compose import CONFIGURATION, compose
from .schema import check, check_calls

__all__ = ["CONFIGURATION", "check", "check_calls", "compose", "make"]


def make(node: DictConfig, **options: Any) -> Any:
    """Returns what a node's `_target_` makes of its options, and of more of them; lists and mappings are plain ones."""
    return instantiate(node, _convert_="all", **options)
