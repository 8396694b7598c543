"""Samples with less noise than a prior's: nearer to the middle of what it knows, and less varied.

A temperature scales the noise about a mean: that of each component of a mixture about its own, that of a flow before
its transform, that of each level of a hierarchy. Scaling codes themselves would draw them towards 0, which is the mean
of the standard prior alone.
"""

from functools import singledispatch

from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

from ..distributions import Flow, Ladder

__all__ = ["tempered"]


@singledispatch
def tempered(prior: Distribution, temperature: float) -> Distribution:
    """Returns a distribution to sample from, with the noise of a prior scaled by a factor; 0 leaves its means.

    Other types of distribution can register their own version.

    Args:
        prior: p(z).
        temperature: the factor, at least 0.

    Raises:
        ValueError: for a distribution that has no noise about a mean, such as a uniform one.

    >>> import torch
    >>> halves = Independent(Normal(torch.tensor([[-4.0], [4.0]]), 1.0), 1)
    >>> weights = torch.distributions.Categorical(torch.ones(2))
    >>> tempered(MixtureSameFamily(weights, halves), 0.0).sample((100,)).abs().unique()
    tensor([4.])
    """
    raise ValueError(f"{type(prior).__name__} has no noise about a mean that could be scaled")


@tempered.register
def _(prior: Normal, temperature: float) -> Normal:
    return Normal(prior.loc, temperature * prior.scale, validate_args=False)


@tempered.register
def _(prior: MultivariateNormal, temperature: float) -> MultivariateNormal:
    return MultivariateNormal(prior.loc, scale_tril=temperature * prior.scale_tril, validate_args=False)


@tempered.register
def _(prior: Independent, temperature: float) -> Independent:
    base = tempered(prior.base_dist, temperature)
    return Independent(base, prior.reinterpreted_batch_ndims, validate_args=False)


@tempered.register
def _(prior: MixtureSameFamily, temperature: float) -> MixtureSameFamily:
    components = tempered(prior.component_distribution, temperature)
    return MixtureSameFamily(prior.mixture_distribution, components, validate_args=False)


@tempered.register
def _(prior: TransformedDistribution, temperature: float) -> TransformedDistribution:
    return TransformedDistribution(tempered(prior.base_dist, temperature), prior.transforms, validate_args=False)


@tempered.register
def _(prior: Flow, temperature: float) -> Flow:
    return Flow(tempered(prior.base, temperature), prior.transform)


@tempered.register
def _(prior: Ladder, temperature: float) -> Ladder:
    return Ladder(prior.top_down, prior.evidence, temperature * prior.temperature)
