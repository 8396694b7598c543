"""Learning curves: the terms of a run's objective on training batches, by optimizer step."""

from collections.abc import Iterable

from ..runs import Run
from .files import read_arrays

__all__ = ["Curves", "learning_curves", "terms"]

Curves = dict[str, tuple[list[int], list[float]]]


def learning_curves(run: Run) -> Curves:
    """Returns the steps and values of each term that a run has recorded, in the run's order; empty if none."""
    kept = read_arrays(run.curves_file, {}) or {}
    curves: Curves = {}
    for name, values in kept.items():
        steps = kept.get(f"{name}_steps")
        if steps is not None and values.ndim == 1 and steps.shape == values.shape and values.dtype.kind in "fiu":
            curves[name] = [int(step) for step in steps], values.astype(float).tolist()
    return curves


def terms(curves: Iterable[Curves]) -> list[str]:
    """Returns the names of all terms, those that the most runs have first, else in the order of the runs.

    >>> terms([{"loss": ([], []), "mmd": ([], []), "rate": ([], [])}, {"loss": ([], []), "rate": ([], [])}])
    ['loss', 'rate', 'mmd']
    """
    counts: dict[str, int] = {}
    for found in curves:
        for name in found:
            counts[name] = counts.get(name, 0) + 1
    return sorted(counts, key=lambda name: -counts[name])
