"""Checks of an objective's options and of the model that it trains."""

from typing import TypeVar

from torch.distributions import Independent

from .objective import Model, Objective

__all__ = ["at_least", "require_fixed_prior", "require_independent_prior", "require_means_only"]

Number = TypeVar("Number", int, float)


def require_independent_prior(objective: Objective, model: Model) -> None:
    """Raises `ValueError` if the dimensions of the model's prior are not independent."""
    prior = model.prior_distribution()
    if not isinstance(prior, Independent):
        name, other = type(objective).__name__, type(prior).__name__
        raise ValueError(f"objective: {name} needs a prior with independent dimensions, such as standard, got {other}")


def require_fixed_prior(objective: Objective, model: Model) -> None:
    """Raises `ValueError` if the model's prior is learned, for objectives that train only codes towards it."""
    prior = model.prior_distribution()
    if prior.log_prob(prior.sample()).requires_grad:
        name, other = type(objective).__name__, type(prior).__name__
        raise ValueError(f"objective: {name} does not train a prior; choose a fixed one, such as standard, not {other}")


def require_means_only(objective: Objective, model: Model) -> None:
    """Raises `ValueError` if the likelihood has parameters, for objectives that train only the mean of p(x|z)."""
    if any(True for _ in model.likelihood.parameters()):
        name, other = type(objective).__name__, type(model.likelihood).__name__
        raise ValueError(
            f"objective: {name} does not train a likelihood's parameters; choose one without, such as bernoulli or "
            f"optimal_sigma, not {other}"
        )


def at_least(name: str, value: Number, least: float) -> Number:
    """Returns the value of an option; raises `ValueError` if it is below the minimum, or NaN."""
    if not value >= least:
        raise ValueError(f"{name}: must be a number of at least {least}, got {value}")
    return value
