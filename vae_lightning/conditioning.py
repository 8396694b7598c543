"""Labels for the parts of a model that ask for them, by an attribute `conditional = True`."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["draw_labels", "given", "is_conditional"]


def is_conditional(module: nn.Module) -> bool:
    """Returns whether a module is called with labels, `(B,)`, −1 where hidden, or None, as well."""
    return bool(getattr(module, "conditional", False))


def given(module: nn.Module, labels: Tensor | None) -> tuple[Tensor | None, ...]:
    """Returns the labels argument for a conditional module; empty for any other."""
    return (labels,) if is_conditional(module) else ()


def draw_labels(parts: Iterable[nn.Module], count: int, device: torch.device) -> Tensor | None:
    """Returns labels `(count,)`, all classes being equally likely; None if no part knows its number of `classes`."""
    sizes = [getattr(part, "classes", 0) for part in parts if is_conditional(part)]
    return torch.randint(max(sizes), (count,), device=device) if any(sizes) else None
