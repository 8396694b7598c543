"""Divergence: a training that produces NaN or infinite values is stopped."""

import math
from collections.abc import Mapping

from pytorch_lightning import LightningModule

__all__ = ["DivergenceError", "refuse_divergence", "refuse_values"]

ADVICE = "a lower model.optimizer.lr may help"


class DivergenceError(RuntimeError):
    """Raised when training produces NaN or infinite values."""


def refuse_values(values: Mapping[str, float], where: str = "") -> None:
    """Raises `DivergenceError` if a value is NaN or infinite.

    Args:
        values: by name.
        where: what the message begins with, such as the step.

    >>> refuse_values({"loss": math.nan, "rate": 1.0}, "step 3: ")
    Traceback (most recent call last):
    vae_lightning.callbacks.divergence.DivergenceError: step 3: loss is nan; a lower model.optimizer.lr may help
    """
    if wrong := [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]:
        raise DivergenceError(f"{where}{', '.join(wrong)}; {ADVICE}")


def refuse_divergence(module: LightningModule) -> None:
    """Raises `DivergenceError` if a weight is NaN or infinite."""
    if not all(parameter.isfinite().all() for parameter in module.parameters()):
        raise DivergenceError(f"weights: NaN or infinite; {ADVICE}")
