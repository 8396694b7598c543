"""The options that the class or function named by a `_target_` accepts."""

import inspect
import pkgutil
from collections.abc import Mapping

__all__ = ["parameters"]


def parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """Parameters of a class's constructor or of a function, by name. Imports what the target names; calls nothing.

    Raises:
        ImportError, AttributeError, TypeError, ValueError: if there is no such class or function.
    """
    return inspect.signature(pkgutil.resolve_name(target)).parameters
