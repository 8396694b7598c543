"""Fitting a prior to given codes, such as those of a model that has been trained with another one.

Source: Ghosh et al. (2020), section 4, https://arxiv.org/abs/1903.12436.
"""

import warnings
from collections.abc import Callable
from functools import singledispatch

import torch
from sklearn import mixture
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .gaussian_mixture import GaussianMixture
from .prior import Prior
from .standardised import Standardised

__all__ = ["fit"]

BATCH = 512
RATE = 5e-3  # of learning at first; it falls to 0


@singledispatch
def fit(prior: Prior, codes: Tensor, steps: int, advance: Callable[[float], object] = lambda share: None) -> None:
    """Maximises the mean log p(z) of codes, by Adam's steps if nothing better is known of the prior's kind.

    Draws from torch's random state.

    Args:
        prior: whose parameters are changed.
        codes: `(N, latent_dim)`, at least two.
        steps: number of steps.
        advance: called after each step with the share that it is of all.
    """
    if isinstance(prior, Standardised):
        prior.standardise(codes)
    optimizer = torch.optim.Adam(prior.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = codes[torch.randint(len(codes), (min(BATCH, len(codes)),)).to(codes.device)]
        optimizer.zero_grad()
        (-prior.distribution().log_prob(chosen).mean()).backward()
        optimizer.step()
        schedule.step()
        advance(1 / steps)


@fit.register
def _(
    prior: GaussianMixture, codes: Tensor, steps: int, advance: Callable[[float], object] = lambda share: None
) -> None:
    """By expectation maximisation, scikit-learn's; `steps` is the largest number of its iterations."""
    kind = "diag" if prior.below is None else "full"
    seed = int(torch.randint(2**31, ()))
    found = mixture.GaussianMixture(len(prior.means), covariance_type=kind, max_iter=steps, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as many iterations as were asked for
        found.fit(codes.cpu().double().numpy())
    weights, means, covariances = (
        torch.from_numpy(array) for array in (found.weights_, found.means_, found.covariances_)
    )
    with torch.no_grad():
        prior.logits.copy_(weights.log())
        prior.means.copy_(means)
        if prior.below is None:
            prior.log_scales.copy_(covariances.log() / 2)
        else:
            factors = torch.linalg.cholesky(covariances)
            prior.log_scales.copy_(factors.diagonal(dim1=-2, dim2=-1).log())
            prior.below.copy_(factors.tril(-1))
    advance(1)
