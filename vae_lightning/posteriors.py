"""Posteriors q(z|x): the Gaussian head of the encoders, and functions of any posterior distribution.

Each function has a default that needs only `rsample` and `log_prob`, and exact versions for some types of
distribution. Other types can register their own:

>>> from torch.distributions import LogNormal
>>> @point.register
... def _(posterior: LogNormal):
...     return posterior.mode
>>> point(LogNormal(torch.zeros(3), torch.ones(3)))
tensor([0.3679, 0.3679, 0.3679])
"""

from functools import singledispatch

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
    kl_divergence,
)

__all__ = ["GaussianHead", "marginal_log_prob", "moments", "point", "rate", "rates", "spread"]

SAMPLES = 256  # to estimate posterior moments that have no closed form


class GaussianHead(nn.Module):
    """Two linear maps from features to q(z|x) = N(μ, diag σ²), for μ and log σ².

    Args:
        features: number of input features.
        latent_dim: dimension of z.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        # 32 bits even under mixed precision: densities are differences of large numbers.
        mean, log_variance = (
            output.to(torch.promote_types(output.dtype, torch.float32))
            for output in (self.mean(features), self.log_variance(features))
        )
        # Validating the arguments would read them back from the device at every step.
        return Independent(Normal(mean, (0.5 * log_variance).exp(), validate_args=False), 1, validate_args=False)


@singledispatch
def point(posterior: Distribution) -> Tensor:
    """Returns the code `(B, latent_dim)` that represents an image: its posterior mean if that has a closed form.

    For a transformed distribution (a flow) it is the transformed point of the base distribution; otherwise a sample
    mean.
    """
    mean = _closed_form(posterior, "mean")
    return posterior.sample((SAMPLES,)).mean(0) if mean is None else mean


@point.register
def _(posterior: TransformedDistribution) -> Tensor:
    code = point(posterior.base_dist)
    for transform in posterior.transforms:
        code = transform(code)
    return code


@singledispatch
def spread(posterior: Distribution) -> Tensor:
    """Returns the standard deviation of each dimension, `(B, latent_dim)`; of samples if it has no closed form."""
    deviation = _closed_form(posterior, "stddev")
    return posterior.sample((SAMPLES,)).std(0) if deviation is None else deviation


@singledispatch
def moments(posterior: Distribution) -> tuple[Tensor, Tensor]:
    """Returns the mean `(…, latent_dim)` and covariance `(…, latent_dim, latent_dim)`, by default those of samples.

    If the dimensions are independent, the covariance is given by the variances `(…, latent_dim)`.
    """
    z = posterior.sample((20_000,) if not posterior.batch_shape else (SAMPLES,)).double()
    mean = z.mean(0)
    centred = (z - mean).movedim(0, -1)
    return mean, centred @ centred.mT / (len(z) - 1)


@moments.register
def _(posterior: Independent) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.variance


@moments.register
def _(posterior: MultivariateNormal) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.covariance_matrix


def rate(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    """Returns KL(q(z|x) ‖ p(z)), `(B,)`, in nats; estimated at z `(B, latent_dim)` if it has no closed form."""
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:  # raised by PyTorch for a pair without closed form
        return posterior.log_prob(z) - prior.log_prob(z)


def rates(posterior: Distribution, prior: Distribution) -> Tensor:
    """Returns the rate of each latent dimension, KL(q(z_j|x) ‖ p(z_j)), in nats, `(B, latent_dim)`.

    Estimated from one sample if there is no closed form. Under a prior with dependent dimensions, they do not add up
    to the rate. If a distribution's marginals are unknown, returns the total rate, `(B, 1)`.
    """
    if isinstance(posterior, Independent) and isinstance(prior, Independent):
        try:
            return kl_divergence(posterior.base_dist, prior.base_dist)
        except NotImplementedError:
            pass
    z = posterior.sample()
    of_posterior, of_prior = marginal_log_prob(posterior, z), marginal_log_prob(prior, z)
    if of_posterior is None or of_prior is None:
        return rate(posterior, prior, z).unsqueeze(-1)
    return of_posterior - of_prior


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


def _closed_form(distribution: Distribution, name: str) -> Tensor | None:
    try:
        return getattr(distribution, name)
    except NotImplementedError:
        return None
