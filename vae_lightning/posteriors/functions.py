"""Functions of any posterior distribution.

Most have a default that needs only `rsample` and `log_prob`, and exact versions for some types of distribution. Other
types can register their own:

>>> import torch

>>> from torch.distributions import LogNormal
>>> @point.register
... def _(posterior: LogNormal):
...     return posterior.mode
>>> point(LogNormal(torch.zeros(3), torch.ones(3)))
tensor([0.3679, 0.3679, 0.3679])
"""

from functools import singledispatch

from torch import Tensor
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    TransformedDistribution,
)

__all__ = ["moments", "point", "spread", "stopped", "symbols"]

SAMPLES = 256  # to estimate posterior moments that have no closed form


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
    z = posterior.sample((20_000,) if not posterior.batch_shape else (SAMPLES,)).cpu().double()
    mean = z.mean(0)
    centred = (z - mean).movedim(0, -1)
    return mean, centred @ centred.mT / (len(z) - 1)


@moments.register
def _(posterior: Independent) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.variance


@moments.register
def _(posterior: MultivariateNormal) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.covariance_matrix


@singledispatch
def symbols(posterior: Distribution) -> tuple[Tensor, int] | None:
    """Returns the numbers `(B, P)` of the codes in each image's sequence, and how many codes there are.

    None for a posterior whose codes are not from a finite set.
    """
    return None


@singledispatch
def stopped(posterior: Distribution) -> Distribution:
    """Returns the posterior with constant parameters: its `log_prob` has gradients with respect to the code alone.

    Raises:
        ValueError: for a type of distribution for which no function is registered.
    """
    name = type(posterior).__name__
    raise ValueError(f"posterior: the parameters of {name} cannot be held constant; register posteriors.stopped for it")


@stopped.register
def _(posterior: Independent) -> Independent:
    return Independent(stopped(posterior.base_dist), posterior.reinterpreted_batch_ndims, validate_args=False)


@stopped.register
def _(posterior: Normal) -> Normal:
    return Normal(posterior.loc.detach(), posterior.scale.detach(), validate_args=False)


@stopped.register
def _(posterior: MultivariateNormal) -> MultivariateNormal:
    factor = posterior.scale_tril.detach()
    return MultivariateNormal(posterior.loc.detach(), scale_tril=factor, validate_args=False)


def _closed_form(distribution: Distribution, name: str) -> Tensor | None:
    try:
        return getattr(distribution, name)
    except NotImplementedError:
        return None
