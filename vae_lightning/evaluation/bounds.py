"""Bounds of the log-likelihood, and their relatives."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data import sizes
from ..data.batch import Batch
from ..objectives import Model

__all__ = ["importance_weighted_bound", "log_weights", "squared_error"]


def log_weights(model: Model, batch: Batch, posterior: Distribution, prior: Distribution, samples: int) -> Tensor:
    """Returns log p(x|z) + log p(z) − log q(z|x) of B images for posterior samples z: `(samples, B)`.

    Each is an unbiased estimate of the ELBO.

    Args:
        model: p(x|z).
        batch: images and labels.
        posterior: q(z|x) of the images, batch `(B,)`.
        prior: p(z), batch `()` or `(B,)`.
        samples: for each image.
    """
    images, labels = batch
    z = posterior.sample((samples,))
    return model.decode(z, labels).log_prob(images) + prior.log_prob(z) - posterior.log_prob(z)


@torch.no_grad()
def importance_weighted_bound(
    model: Model,
    batch: Batch,
    samples: int,
    at_once: int | None = None,
    advance: Callable[[float], object] = lambda share: None,
) -> Tensor:
    """Returns log (1/K) Σ_k w_k of each image, `(B,)`: a lower bound of log p(x) that rises with K.

    In expectation it is the ELBO for K = 1 and tends to log p(x).

    Args:
        model: p(x|z), p(z) and q(z|x).
        batch: images and labels.
        samples: K.
        at_once: codes, at most, that are decoded at the same time; by default see `vae_lightning.data.sizes`.
        advance: called whenever a share of the samples has been decoded, with the share; they add up to 1.

    Source: Burda, Grosse and Salakhutdinov (2016), equation 8, https://arxiv.org/abs/1509.00519.
    """
    posterior, prior = model.encode(*batch), model.prior_distribution(batch.labels)
    total = batch.images.new_full((len(batch.images),), -math.inf)
    at_once = at_once or sizes.at_once(batch.images.shape[1:])
    for count in _parts(samples, max(1, at_once // len(batch.images))):
        total = torch.logaddexp(total, log_weights(model, batch, posterior, prior, count).logsumexp(0))
        advance(count / samples)
    return total - math.log(samples)


def _parts(total: int, largest: int) -> Iterator[int]:
    for start in range(0, total, largest):
        yield min(largest, total - start)


def squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Returns the mean squared difference of the pixels of two sets of images `(B, C, H, W)`: `(B,)`."""
    return (x - reconstruction).square().flatten(1).mean(1)
