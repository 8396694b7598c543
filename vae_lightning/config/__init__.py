"""The configuration: schema, composition, error messages, and Hydra callbacks for runs and sweeps."""

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from .compose import compose
from .files import CONFIGURATION
from .schema import check, check_calls, refuse_monitors

__all__ = ["CONFIGURATION", "check", "check_calls", "compose", "make", "refuse_monitors"]


def make(node: DictConfig, **options: Any) -> Any:
    """Calls a node's `_target_` with its options and further ones; lists and mappings are passed as plain objects."""
    return instantiate(node, _convert_="all", **options)
