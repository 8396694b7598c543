"""The rate: the KL divergence of the posterior from the prior, as a whole, by latent dimension and by level.

`rate` and `rates` use closed forms where PyTorch knows one (`torch.distributions.register_kl` adds to them), otherwise
a sample. `level_rates`, `marginal_log_prob` and `log_prob_of_each` can be registered for other types of distributions.
"""

from functools import singledispatch

import torch
from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

__all__ = ["has_density", "known_rate", "level_rates", "log_prob_of_each", "marginal_log_prob", "rate", "rates"]


def rate(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """Returns KL(q(z|x) ‖ p(z)), `(B,)`, in nats; estimated at z `(B, latent_dim)` if it has no closed form."""
    if levels := level_rates(posterior, prior, z):
        return torch.cat(levels, -1).sum(-1)
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:  # raised by PyTorch for a pair without closed form
        return posterior.log_prob(z) - prior.log_prob(z)


def known_rate(posterior: Distribution, prior: Distribution, z: Tensor) -> dict[str, Tensor]:
    """Returns the rate as a term, `{"rate": (B,)}`, for objectives that log it only; empty if there is none."""
    return {"rate": rate(posterior, prior, z)} if has_density(posterior) else {}


def rates(posterior: Distribution, prior: Distribution) -> Tensor:
    """Returns the rate of each latent dimension, KL(q(z_j|x) ‖ p(z_j)), in nats, `(B, latent_dim)`.

    Estimated from one sample if there is no closed form. Unless the dimensions of both are independent, they do not
    add up to the rate; those of a hierarchy are given the levels above, in one sample, and do. If a distribution's
    marginals are unknown, returns the total rate, `(B, 1)`; if the posterior has no density, nothing, `(B, 0)`.
    """
    if isinstance(posterior, Independent) and isinstance(prior, Independent):
        try:
            return kl_divergence(posterior.base_dist, prior.base_dist)
        except NotImplementedError:
            pass
    if not has_density(posterior):
        return posterior.mean.new_zeros(*posterior.batch_shape, 0)
    z = posterior.rsample() if posterior.has_rsample else posterior.sample()
    if levels := level_rates(posterior, prior, z):
        return torch.cat(levels, -1)
    of_posterior, of_prior = marginal_log_prob(posterior, z), marginal_log_prob(prior, z)
    if of_posterior is None or of_prior is None:
        return rate(posterior, prior, z).unsqueeze(-1)
    return of_posterior - of_prior


@singledispatch
def has_density(posterior: Distribution) -> bool:
    """Returns whether `log_prob` is defined, so that there are a rate and a bound; so it is for all but points."""
    return True


@singledispatch
def level_rates(posterior: Distribution, prior: Distribution, z: Tensor) -> tuple[Tensor, ...]:
    """Returns the rates of each level's dimensions, `(B, size)`, from the data upwards; `()` if there are no levels.

    They are those of KL(q(z_l|x, z_above) ‖ p(z_l|z_above)), with the levels above as in z `(B, latent_dim)`.
    """
    return ()


@singledispatch
def log_prob_of_each(posterior: Distribution, z: Tensor) -> Tensor | None:
    """Returns log q(z_i|x_j) of S codes `(S, latent_dim)` under each of B posteriors, `(S, B)`.

    None if there is no such density, or it takes more than one pass through a network for each pair.
    """
    if not has_density(posterior):
        return None
    return posterior.log_prob(z.unsqueeze(1).expand(-1, *posterior.batch_shape, -1))


@singledispatch
def marginal_log_prob(distribution: Distribution, z: Tensor) -> Tensor | None:
    """Returns log q(z_j) of codes `(…, latent_dim)`, in the same shape; None if the marginals are unknown."""
    return None


@marginal_log_prob.register
def _(distribution: Independent, z: Tensor) -> Tensor:
    return distribution.base_dist.log_prob(z)


@marginal_log_prob.register
def _(distribution: MultivariateNormal, z: Tensor) -> Tensor:
    return Normal(distribution.mean, distribution.stddev, validate_args=False).log_prob(z)


@marginal_log_prob.register
def _(distribution: MixtureSameFamily, z: Tensor) -> Tensor | None:
    of_components = marginal_log_prob(distribution.component_distribution, z.unsqueeze(-2))
    if of_components is None:
        return None
    weights = distribution.mixture_distribution.logits.log_softmax(-1)
    return (of_components + weights.unsqueeze(-1)).logsumexp(-2)
