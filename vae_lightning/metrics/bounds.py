"""Bounds of the log-likelihood, and their relatives."""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data import sizes
from ..data.batch import Batch
from ..objectives import Model
from ..rates import rate

__all__ = [
    "bound_with", "effective_share", "elbo", "importance_weighted_bound", "importance_weights", "log_weights",
    "sample_counts", "squared_error",
]  # fmt: skip


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
def elbo(model: Model, batch: Batch, posterior: Distribution, prior: Distribution) -> Tensor:
    """Returns −distortion − rate of B images with one posterior sample each: `(B,)`; see `log_weights`.

    The rate is in closed form where it has one, as in `vae_lightning.objectives.ELBO`.
    """
    z = posterior.sample()
    return model.decode(z, batch.labels).log_prob(batch.images) - rate(posterior, prior, z)


@torch.no_grad()
def importance_weights(
    model: Model,
    batch: Batch,
    posterior: Distribution,
    samples: int,
    at_once: int | None = None,
    advance: Callable[[float], object] = lambda share: None,
) -> Tensor:
    """Returns the `log_weights` of B images whose posterior is known, decoded some at a time: `(samples, B)`.

    Args:
        model: p(x|z) and p(z).
        batch: images and labels.
        posterior: q(z|x) of the images, batch `(B,)`.
        samples: for each image.
        at_once: codes, at most, that are decoded at the same time; by default see `vae_lightning.data.sizes`.
        advance: called whenever a share of the samples has been decoded, with the share; they add up to 1.
    """
    prior = model.prior_distribution(batch.labels)
    at_once = at_once or sizes.at_once(batch.images.shape[1:], batch.images.device)
    found = []
    for count in _parts(samples, max(1, at_once // len(batch.images))):
        found.append(log_weights(model, batch, posterior, prior, count))
        advance(count / samples)
    return torch.cat(found)


def _parts(total: int, largest: int) -> Iterator[int]:
    for start in range(0, total, largest):
        yield min(largest, total - start)


@torch.no_grad()
def importance_weighted_bound(model: Model, batch: Batch, samples: int, at_once: int | None = None) -> Tensor:
    """Returns log (1/K) Σ_k w_k of each image, `(B,)`: a lower bound of log p(x) that rises with K.

    In expectation it is the ELBO for K = 1 and tends to log p(x).

    Args:
        model: p(x|z), p(z) and q(z|x).
        batch: images and labels.
        samples: K.
        at_once: see `importance_weights`.

    Source: Burda, Grosse and Salakhutdinov (2016), equation 8, https://arxiv.org/abs/1509.00519.
    """
    return bound_with(importance_weights(model, batch, model.encode(*batch), samples, at_once), samples)


def bound_with(log_weights: Tensor, samples: int) -> Tensor:
    """Returns the importance-weighted bound with K samples of each image, `(B,)`, from N ≥ K log-weights `(N, B)`.

    It is the mean over ⌊N/K⌋ disjoint groups, so no bound of the same weights with 2K samples is below it.
    """
    groups = len(log_weights) // samples
    grouped = log_weights[: groups * samples].unflatten(0, (groups, samples))
    return grouped.logsumexp(1).mean(0) - math.log(samples)


def sample_counts(most: int) -> list[int]:
    """Returns the numbers of samples at which a bound is drawn, up to the largest.

    >>> sample_counts(300)
    [1, 2, 5, 10, 20, 50, 100, 200, 300]
    """
    series = (digit * 10**power for power in range(len(str(most))) for digit in (1, 2, 5))
    return [*(count for count in series if count < most), most]


def effective_share(log_weights: Tensor) -> Tensor:
    """Returns (Σ w)² / (K Σ w²) of each image, `(B,)`, from log-weights `(K, B)`: 1 if all are equal, 1/K if one rules.

    K times it is the effective sample size (Kong 1992): a bound rests on so many of its samples.
    """
    of_squares = (2 * log_weights).logsumexp(0)
    return (2 * log_weights.logsumexp(0) - of_squares).exp() / len(log_weights)


def squared_error(x: Tensor, reconstruction: Tensor) -> Tensor:
    """Returns the mean squared difference of the pixels of two sets of images `(B, C, H, W)`: `(B,)`."""
    return (x - reconstruction).square().flatten(1).mean(1)
