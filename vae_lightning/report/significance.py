"""When differences over seeds can be tested, and several tests at once."""

from collections.abc import Sequence

import numpy as np

__all__ = ["LEVEL", "rejected", "without_spread"]

LEVEL = 0.05  # of all tests together
ROUNDING = 1e-6  # of float32, in which metrics are measured, relative


def without_spread(differences: np.ndarray, *values: np.ndarray | float) -> bool:
    """Returns whether differences between values are the same for all seeds, apart from rounding.

    Those of whole numbers, such as counts of images, often are, and leave nothing to test by.
    """
    scale = max(float(np.abs(value).max()) for value in values)
    return bool(np.ptp(differences) <= ROUNDING * scale)


def rejected(p_values: Sequence[float]) -> list[bool]:
    """Returns which hypotheses are rejected, with a probability of at most `LEVEL` that any of them is true.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.

    >>> rejected([0.04, 0.001, 0.02])
    [True, True, True]
    >>> rejected([0.04, 0.001, 0.03])
    [False, True, False]
    """
    order = sorted(range(len(p_values)), key=lambda number: p_values[number])
    found = [False] * len(p_values)
    for rank, number in enumerate(order):
        if not p_values[number] <= LEVEL / (len(p_values) - rank):
            break
        found[number] = True
    return found
