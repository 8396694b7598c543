"""What a run that may come from someone else may construct: only classes of this package and of PyTorch.

Nothing is executed, and no module outside these packages is imported, before every class has been checked.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..errors import first_line

__all__ = ["LoadError", "trusted_modules", "vet"]

PACKAGE = "vae_lightning"
NODE_KEYS = {"_target_", "_partial_"}


class LoadError(ValueError):
    """Raised when a run cannot be loaded; the message says why."""


def trusted_modules(trust: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of modules, of which a text may have several, with commas.

    >>> trusted_modules("mine, ours"), trusted_modules(["mine,ours", "theirs"])
    (('mine', 'ours'), ('mine', 'ours', 'theirs'))
    """
    texts = [trust] if isinstance(trust, str) else trust
    return tuple(name for text in texts for part in text.split(",") if (name := part.strip()))


def vet(nodes: Mapping[str, Any], trust: str | Sequence[str]) -> None:
    """Raises `LoadError` for anything that a resolved configuration cannot contain, and for untrusted classes.

    Args:
        nodes: of the configuration, by key.
        trust: modules whose classes are trusted, besides this package and PyTorch's; also several in a text, by commas.
    """
    trusted = trusted_modules(trust)
    targets = []
    for place, found in (pair for key, node in nodes.items() for pair in _walk(node, key)):
        if isinstance(found, str) and "${" in found:
            raise LoadError(f"{place}={found}: interpolations are not allowed in a run's configuration")
        if isinstance(found, Mapping):
            special = {str(name) for name in found if str(name).startswith("_")} - NODE_KEYS
            if special:
                raise LoadError(f"{place}: {', '.join(sorted(special))} is not allowed in a run's configuration")
            if "_target_" in found:
                targets.append((f"{place}._target_", str(found["_target_"])))
    _refuse_untrusted(targets, trusted)
    for place, target in targets:
        _vet_class(place, target, trusted)


def _walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    yield key, node
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _walk(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, f"{key}[{number}]")


def _within(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def _refuse_untrusted(targets: Sequence[tuple[str, str]], trusted: tuple[str, ...]) -> None:
    """Raises `LoadError` for classes of other modules; these are never imported, and no attributes are followed."""
    packages = (*trusted, PACKAGE, "torch.nn", "torch.optim")
    untrusted = [(place, target) for place, target in targets if not _within(target.rpartition(".")[0], *packages)]
    if untrusted:
        modules = dict.fromkeys(target.rpartition(".")[0].split(".")[0] for _, target in untrusted)
        names = [name for name in modules if name.isidentifier()]
        whom = "it" if len(modules) == 1 else ", ".join(names)
        hint = f"; if you trust {whom}, add --trust {','.join(names)}, or trust={names} in Python" if names else ""
        place, target = untrusted[0]
        raise LoadError(f"{place}={target}: only classes of this package and PyTorch are loaded{hint}")


def _vet_class(place: str, target: str, trusted: tuple[str, ...]) -> None:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    module, _, name = target.rpartition(".")
    is_trusted = _within(module, *trusted)
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a trusted module may raise anything
        missing = isinstance(error, ModuleNotFoundError) and module.startswith(str(error.name))
        folder = f"; the folder that contains {module.split('.')[0]} must be on PYTHONPATH"
        hint = folder if is_trusted and missing else ""
        raise LoadError(f"{place}={target}: cannot be loaded: {first_line(error)}{hint}") from error
    if is_trusted:
        return
    ours = isinstance(found, type) and _within(found.__module__, PACKAGE)
    of_torch = isinstance(found, type) and _within(found.__module__, "torch")
    if not (ours or (of_torch and issubclass(found, nn.Module | Optimizer | LRScheduler))):
        raise LoadError(
            f"{place}={target}: is neither a class of this package nor a layer, optimizer or learning-rate schedule of "
            "PyTorch"
        )
