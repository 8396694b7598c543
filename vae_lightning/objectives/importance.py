"""Importance weights of posterior samples, which the multi-sample bounds share."""

import math

from torch import Tensor

from ..data.batch import Batch
from .objective import Model

__all__ = ["importance_bound", "importance_terms"]


def importance_terms(model: Model, batch: Batch, samples: int) -> tuple[Tensor, Tensor]:
    """Returns the distortion and the rate of each of several posterior samples, both `(samples, B)`, in nats.

    Their negative sum is the logarithm of the sample's importance weight, log w = log p(x|z) + log p(z) − log q(z|x).
    """
    posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
    z = posterior.rsample((samples,))
    distortion = -model.decode(z, batch.labels).log_prob(batch.images)
    return distortion, posterior.log_prob(z) - prior.log_prob(z)


def importance_bound(log_weights: Tensor, axis: int = 0) -> Tensor:
    """Returns the negative importance-weighted bound, −log 1/K Σ_k w_k, over an axis of K samples."""
    return math.log(log_weights.shape[axis]) - log_weights.logsumexp(axis)
