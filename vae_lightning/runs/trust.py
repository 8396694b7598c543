"""What a run that may come from someone else may construct: only classes of this package and of PyTorch.

Nothing is executed, and no module outside these packages is imported, before every class has been checked.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["LoadError", "vet"]

NODE_KEYS = {"_target_", "_partial_"}


class LoadError(ValueError):
    """Raised when a run cannot be loaded; the message says why."""


def vet(node: Any, key: str, trust: tuple[str, ...]) -> None:
    """Raises `LoadError` for anything that a resolved configuration cannot contain, and for untrusted classes."""
    for place, found in _walk(node, key):
        if isinstance(found, str) and "${" in found:
            raise LoadError(f"{place}={found}: interpolations are not allowed in a run's configuration")
        if isinstance(found, Mapping):
            special = {str(name) for name in found if str(name).startswith("_")} - NODE_KEYS
            if special:
                raise LoadError(f"{place}: {', '.join(sorted(special))} is not allowed in a run's configuration")
            if "_target_" in found:
                _vet_target(found["_target_"], place, trust)


def _walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    yield key, node
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _walk(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, f"{key}[{number}]")


def _vet_target(target: Any, place: str, trust: tuple[str, ...]) -> None:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    def within(module: str, *packages: str) -> bool:
        return any(module == package or module.startswith(package + ".") for package in packages)

    module, _, name = str(target).rpartition(".")
    package = "vae_lightning"
    trusted = within(module, *trust)
    # A module outside these packages is never imported, and modules' attributes are not followed.
    if not (trusted or within(module, package, "torch.nn", "torch.optim")):
        hint = f"; if you trust it, add --trust {module.split('.')[0]}" if module else ""
        raise LoadError(f"{place}._target_={target}: only classes of this package and PyTorch are loaded{hint}")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a trusted module may raise anything
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))
        hint = f"; the folder that contains {module.split('.')[0]} must be on PYTHONPATH" if trusted and missing else ""
        raise LoadError(f"{place}._target_={target}: cannot be loaded: {error}{hint}") from error
    if trusted:
        return
    ours = isinstance(found, type) and within(found.__module__, package)
    of_torch = isinstance(found, type) and within(found.__module__, "torch")
    if not (ours or (of_torch and issubclass(found, nn.Module | Optimizer | LRScheduler))):
        raise LoadError(
            f"{place}._target_={target}: is neither a class of this package nor a layer, optimizer or learning-rate "
            "schedule of PyTorch"
        )
