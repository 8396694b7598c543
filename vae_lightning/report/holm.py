"""Several tests at once."""

from collections.abc import Sequence

__all__ = ["LEVEL", "rejected"]

LEVEL = 0.05  # of all tests together


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
