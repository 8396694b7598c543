"""The parts of the rate: what codes tell of their images, and how far all codes together are from the prior.

    E KL(q(z|x) ‖ p(z)) = I_q(x; z) + KL(q(z) ‖ p(z)),    KL(q(z) ‖ p(z)) = TC(z) + Σ_j KL(q(z_j) ‖ p(z_j)),

the second where the dimensions of the prior are independent. Hoffman and Johnson (2016), *ELBO surgery*; Chen et al.
(2018), equation 2, https://arxiv.org/abs/1802.04942.

The aggregate posterior q(z) = E_x q(z|x) of all images there are is unknown: an average over N images that has the
code's own among them is too large at the code, and one without it too small. So the information is given between two
bounds. No lower bound from N images exceeds log N, whatever the estimator (McAllester and Stratos 2020,
https://arxiv.org/abs/1811.04251): where codes tell every image from every other, the bounds are far apart.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..rates import log_prob_of_each, marginal_log_prob, rate
from .codes import Aggregate

__all__ = ["rate_parts"]

MOST = 2**26  # densities of single dimensions that are computed, about: half a second on one core
AT_ONCE = 2**20  # of them at the same time


@torch.no_grad()
def rate_parts(
    halves: Sequence[Sequence[Distribution]], prior: Distribution, euclidean: bool = True
) -> dict[str, float]:
    """Returns bounds of the parts of the rate, as means over N images, in nats.

    `mutual_information_lower`
        E log q(z|x) − log q̂(z), where q̂ is the mean over the posteriors of all images; Poole et al. (2019), equation
        12, https://arxiv.org/abs/1905.06922.
    `mutual_information_upper`
        the least of four: the rate; E log q(z|x) − log q̂(z) without the image's own posterior in q̂ (equation 13); and
        the rate less E log r(z) − log p(z) for two densities r that have not seen the image: the Gaussian with the
        moments of the other half's aggregate posterior, and the product of q̂'s marginals, without the image's own.
    `marginal_kl_lower`, `marginal_kl_upper`
        KL(q(z) ‖ p(z)): the rate less the information.
    `dimensionwise_kl`
        Σ_j KL(q(z_j) ‖ p(z_j)), with q̂(z_j) without the image's own posterior.
    `total_correlation_lower`, `total_correlation_upper`
        the marginal KL less that of the dimensions.

    The rate is exact where it has a closed form. Of each posterior one sample is drawn; where there are many images and
    dimensions, q̂ is evaluated at some of these only. The last three are there where the prior's dimensions are
    independent and the posterior's marginals are known; none, if `vae_lightning.rates.log_prob_of_each` knows none.

    Args:
        halves: q(z|x), batch `(B,)` each, of two disjoint halves of the images.
        prior: p(z), batch `()`.
        euclidean: whether the densities are with respect to volume in R^D.
    """
    posteriors = [posterior for half in halves for posterior in half]
    samples = [[posterior.sample() for posterior in half] for half in halves]
    drawn = [z for half in samples for z in half]
    codes = torch.cat(drawn)
    if len(codes) < 2 or log_prob_of_each(posteriors[0], codes[:1]) is None:
        return {}
    total = _mean(torch.cat([rate(posterior, prior, z) for posterior, z in zip(posteriors, drawn, strict=True)]))
    of_prior = prior.log_prob(codes).cpu().double()
    chosen = torch.randperm(len(codes), device="cpu")[: max(1, MOST // codes.numel())]
    known, among, without, product = _mixtures(posteriors, codes, chosen.to(codes.device))
    bounds = [total, _mean(known - without)]
    if euclidean:
        bounds.append(total - _mean(_under_gaussians(halves, samples) - of_prior))
    dimensionwise = math.nan
    if product is not None and _independent(prior, codes):
        dimensionwise = _mean(product - of_prior[chosen])
        bounds.append(total - dimensionwise)
    upper = min((bound for bound in bounds if not math.isnan(bound)), default=math.nan)
    lower = min(upper, _mean(known - among))
    found = {
        "mutual_information_lower": lower,
        "mutual_information_upper": upper,
        "marginal_kl_lower": total - upper,
        "marginal_kl_upper": total - lower,
        "dimensionwise_kl": dimensionwise,
        "total_correlation_lower": total - upper - dimensionwise,
        "total_correlation_upper": total - lower - dimensionwise,
    }
    return {name: value for name, value in found.items() if math.isfinite(value)}


class _Mixtures(NamedTuple):
    """Log-densities of S codes, `(S,)`, in double precision, on the CPU.

    Attributes:
        own: under the image's own posterior.
        among: under the mean of all posteriors.
        without: under that of all others.
        product: under the product of the marginals of all others; None if they are unknown.
    """

    own: Tensor
    among: Tensor
    without: Tensor
    product: Tensor | None


def _mixtures(posteriors: Sequence[Distribution], codes: Tensor, chosen: Tensor) -> _Mixtures:
    """Those of some of the codes `(N, D)` of N images, by number `(S,)`."""
    own, among, without, product = [], [], [], []
    for numbers in chosen.split(max(1, AT_ONCE // codes.numel())):
        z = codes[numbers]
        joint = torch.cat([found for q in posteriors if (found := log_prob_of_each(q, z)) is not None], 1)
        own.append(joint.gather(1, numbers.unsqueeze(1)).squeeze(1))
        among.append(joint.logsumexp(1) - math.log(len(codes)))
        without.append(_of_others(joint, numbers))
        marginals = [found for q in posteriors if (found := marginal_log_prob(q, z.unsqueeze(1))) is not None]
        if marginals:
            product.append(_of_others(torch.cat(marginals, 1), numbers).sum(-1))
    return _Mixtures(_joined(own), _joined(among), _joined(without), _joined(product) if product else None)


def _joined(values: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(values)).cpu().double()


def _mean(values: Tensor) -> float:
    return values.cpu().double().mean().item()


def _independent(prior: Distribution, codes: Tensor) -> bool:
    """Whether the density of a prior is the product of its marginals."""
    marginals = marginal_log_prob(prior, codes)
    return marginals is not None and torch.allclose(marginals.sum(-1), prior.log_prob(codes), rtol=1e-4, atol=1e-3)


def _of_others(log_probs: Tensor, own: Tensor) -> Tensor:
    """Log of the mean density under all N posteriors but a code's own, `(S, …)`, from log-densities `(S, N, …)`."""
    position = own.view(-1, *[1] * (log_probs.dim() - 1)).expand(-1, 1, *log_probs.shape[2:])
    return log_probs.scatter(1, position, -math.inf).logsumexp(1) - math.log(log_probs.shape[1] - 1)


def _under_gaussians(halves: Sequence[Sequence[Distribution]], samples: Sequence[Sequence[Tensor]]) -> Tensor:
    """Log-densities of the codes of each half under a Gaussian with the moments of the other's, `(N,)`."""
    found = []
    for half, others in zip(samples, reversed(halves), strict=True):
        aggregate = Aggregate()
        for posterior in others:
            aggregate.update(posterior)
        factor, failed = torch.linalg.cholesky_ex(aggregate.covariance)
        z = _joined(half)
        gaussian = torch.distributions.MultivariateNormal(aggregate.mean, scale_tril=factor, validate_args=False)
        found.append(z.new_full(z.shape[:1], math.nan) if failed else gaussian.log_prob(z))
    return torch.cat(found)
