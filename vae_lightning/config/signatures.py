"""The options accepted by the class or function of a `_target_`."""

import inspect
import pkgutil
from collections.abc import Mapping

__all__ = ["parameters"]


def parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a class's constructor or a function, by name. Imports the target, calls nothing.

    Raises:
        ImportError, AttributeError, TypeError, ValueError: if there is no such class or function.
    """
    return inspect.signature(pkgutil.resolve_name(target)).parameters
