"""Checks of an objective's options and of the model that it trains."""

from typing import TypeVar

from torch.distributions import Independent

from .objective import Model, Objective

__all__ = ["at_least", "require_independent_prior"]

Number = TypeVar("Number", int, float)


def require_independent_prior(objective: Objective, model: Model) -> None:
    """Raises `ValueError` if the dimensions of the model's prior are not independent."""
    prior = model.prior_distribution()
    if not isinstance(prior, Independent):
        name, other = type(objective).__name__, type(prior).__name__
        raise ValueError(f"objective: {name} needs a prior with independent dimensions, such as standard, got {other}")


def at_least(name: str, value: Number, least: float) -> Number:
    """Returns the value of an option; raises `ValueError` if it is below the minimum, or NaN."""
    if not value >= least:
        raise ValueError(f"{name}: must be a number of at least {least}, got {value}")
    return value
