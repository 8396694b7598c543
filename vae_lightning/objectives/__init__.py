"""Objectives: what a training step minimises, as functions of a model and a batch of images.

An objective is called with the model and images `(B, C, H, W)` and returns `Terms`, each `(B,)`: one number
per image, in nats, summed over pixels and over latent dimensions. (A mean over either would weigh the two
terms by the size of the image or of the code, and runs with different latent dimensions would no longer
minimise the same thing.) It receives the whole model, so that bounds with many samples fit as well.

An objective that changes during training has a method `advance()`, called after every optimizer step. One that needs
a prior with independent dimensions has `factorised_prior = True`.
"""

import math
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, kl_divergence

from ..priors import Prior

__all__ = ["ELBO", "IWAE", "MMD", "TC", "Annealed", "AsPrinted", "Beta", "FreeBits", "Model", "Terms", "factors"]

Number = TypeVar("Number", int, float)


class Terms(NamedTuple):
    """Per image, in nats, each of shape `(B,)`.

    Attributes:
        loss: what is minimised.
        distortion: −log p(x|z) for a sample z of the posterior, an estimate of −E_q log p(x|z).
        rate: KL(q(z|x) ‖ p(z)), estimated by the same sample where there is no closed form.
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor


class Model(Protocol):
    """What an objective asks of a model; `vae_lightning.vae.VAE` is one."""

    @property
    def prior(self) -> Prior: ...

    def encode(self, x: Tensor) -> Distribution: ...

    def decode(self, z: Tensor) -> Distribution: ...


class ELBO(nn.Module):
    """The negative evidence lower bound, distortion + rate, with one posterior sample per image.

    Source: Kingma and Welling (2014), equation 10, https://arxiv.org/abs/1312.6114.
    """

    factorised_prior = False

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior = model.encode(x)
        z = self.sample(posterior)
        distortion = -model.decode(z).log_prob(x)
        rate = _rate(posterior, model.prior.distribution(), z)
        return Terms(self.combine(distortion, rate), distortion, rate)

    def sample(self, posterior: Distribution) -> Tensor:
        """Codes `(B, latent_dim)` drawn by the reparameterisation z = μ + ε·σ with ε ~ N(0, I)."""
        return posterior.rsample()

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        """The loss `(B,)` made of the two terms."""
        return distortion + rate


class Beta(ELBO):
    """distortion + β·rate.

    Args:
        beta: weight of the rate, at least 0; 1 is the ELBO.

    Raises:
        ValueError: for a negative weight.

    Source: Higgins et al. (2017), β-VAE, https://openreview.net/forum?id=Sy2fzU9gl.
    """

    def __init__(self, beta: float = 4.0) -> None:
        super().__init__()
        self.beta = _at_least("beta", beta, 0)

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.beta * rate


class Annealed(ELBO):
    """distortion + β_t·rate, with β_t rising from 0 in each of several cycles, and constant after the last.

    In a cycle of T steps β_t = β·min(1, t/(r·T)). One cycle with r = 1 is the linear warm-up of Bowman et al.

    Args:
        steps: optimizer steps of all cycles together.
        cycles: number of cycles.
        ramp: r, the share of a cycle in which β_t rises, greater than 0 and at most 1.
        beta: β, where β_t ends.

    Raises:
        ValueError: for an option out of range.

    Source: Bowman et al. (2016), https://arxiv.org/abs/1511.06349; Fu et al. (2019), https://arxiv.org/abs/1903.10145.
    """

    taken: Tensor

    def __init__(self, steps: int = 500, cycles: int = 1, ramp: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        if not 0 < ramp <= 1:
            raise ValueError(f"ramp: must be greater than 0 and at most 1, got {ramp}")
        self.steps = _at_least("steps", steps, 1)
        self.cycles = _at_least("cycles", cycles, 1)
        self.ramp = ramp
        self.beta = _at_least("beta", beta, 0)
        # A buffer: checkpoints keep it.
        self.register_buffer("taken", torch.zeros((), dtype=torch.int64))

    def advance(self) -> None:
        """Counts an optimizer step."""
        self.taken += 1

    @property
    def weight(self) -> Tensor:
        """β_t of the next step, a scalar."""
        position = (self.taken * self.cycles / self.steps).frac()
        rising = (position / self.ramp).clamp(max=1.0)
        return self.beta * torch.where(self.taken < self.steps, rising, torch.ones_like(rising))

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.weight.to(rate.dtype) * rate


class FreeBits(ELBO):
    """distortion + Σ_j max(λ, mean over the batch of rate_j): no gain from using a dimension for less than λ nats.

    Args:
        nats: λ of each latent dimension, at least 0.

    Raises:
        ValueError: for a negative λ.

    Source: Kingma et al. (2016), appendix C.8, https://arxiv.org/abs/1606.04934, with groups of one dimension.
    """

    factorised_prior = True

    def __init__(self, nats: float = 0.1) -> None:
        super().__init__()
        self.nats = _at_least("nats", nats, 0)

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior = model.encode(x)
        distortion = -model.decode(self.sample(posterior)).log_prob(x)
        rates = kl_divergence(factors(posterior), factors(model.prior.distribution()))
        loss = distortion + rates.mean(0).clamp(min=self.nats).sum()
        return Terms(loss, distortion, rates.sum(1))


class IWAE(ELBO):
    """The negative importance-weighted bound, −log 1/K Σ_k p(x, z_k)/q(z_k|x).

    Distortion and rate are means over the K samples, unweighted.

    Args:
        samples: K, at least 1; 1 is the ELBO with a sampled rate.

    Raises:
        ValueError: for less than one sample.

    Source: Burda, Grosse and Salakhutdinov (2016), equation 8, https://arxiv.org/abs/1509.00519.
    """

    def __init__(self, samples: int = 8) -> None:
        super().__init__()
        self.samples = _at_least("samples", samples, 1)

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior, prior = model.encode(x), model.prior.distribution()
        z = posterior.rsample((self.samples,))
        distortion = -model.decode(z).log_prob(x)
        rate = posterior.log_prob(z) - prior.log_prob(z)
        loss = math.log(self.samples) - (-distortion - rate).logsumexp(0)
        return Terms(loss, distortion.mean(0), rate.mean(0))


class MMD(ELBO):
    """distortion + (1 − α)·rate + (α + λ − 1)·MMD²(q(z), p(z)): InfoVAE.

    MMD² is the unbiased estimate from the batch's codes and as many of the prior, with the kernel
    exp(−‖a − b‖²/(2 d)), d being the latent dimension; it is 0 for a batch of one.

    Args:
        alpha: α; 1 leaves the rate out, 0 keeps all of it.
        weight: λ, at least 1 − α. MMD² is at most 2, so weights are of the size of the distortion.

    Raises:
        ValueError: for a weight that is too small.

    Source: Zhao, Song and Ermon (2019), equation 6, https://arxiv.org/abs/1706.02262; Gretton et al. (2012), lemma 6.
    """

    def __init__(self, alpha: float = 0.5, weight: float = 500.0) -> None:
        super().__init__()
        self.alpha = alpha
        self.weight = _at_least("weight", weight, 1 - alpha)

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior, prior = model.encode(x), model.prior.distribution()
        z = self.sample(posterior)
        distortion = -model.decode(z).log_prob(x)
        rate = _rate(posterior, prior, z)
        # A learned prior learns from the rate alone: this term moves codes.
        with torch.no_grad():
            drawn = prior.sample((len(x),))
        divergence = _squared_mmd(z, drawn)
        loss = distortion + (1 - self.alpha) * rate + (self.alpha + self.weight - 1) * divergence
        return Terms(loss, distortion, rate)


class TC(ELBO):
    """distortion + rate + (β − 1)·TC(z): the total correlation KL(q(z) ‖ Π_j q(z_j)) is weighed by β instead of 1.

    q(z) and q(z_j) are estimated by the mixture of the batch's posteriors. (Minibatch-weighted sampling as published
    differs from it by a constant, which depends on the size of the data set and has no gradient.)

    Args:
        beta: β, at least 0; 1 is the ELBO.

    Raises:
        ValueError: for a negative weight.

    Source: Chen et al. (2018), β-TCVAE, equations 2 and 4, https://arxiv.org/abs/1802.04942.
    """

    def __init__(self, beta: float = 4.0) -> None:
        super().__init__()
        self.beta = _at_least("beta", beta, 0)

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior = model.encode(x)
        z = self.sample(posterior)
        distortion = -model.decode(z).log_prob(x)
        rate = _rate(posterior, model.prior.distribution(), z)
        # [i, j, k]: dimension k of code i under the posterior of image j
        densities = factors(posterior).log_prob(z.unsqueeze(1))
        joint = densities.sum(2).logsumexp(1) - math.log(len(x))
        marginals = (densities.logsumexp(1) - math.log(len(x))).sum(1)
        return Terms(distortion + rate + (self.beta - 1) * (joint - marginals), distortion, rate)


class AsPrinted(ELBO):
    """The ELBO with the sampler as the book prints it, z = μ + ε·(½ log σ²): an ablation, not a bound.

    The standard deviation is exp(½ log σ²); the exponential is missing in print. Where the rate is smallest,
    at log σ² = 0, this sampler adds no noise at all, so codes cost little and the model becomes nearly a plain
    autoencoder.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16, as printed.
    """

    factorised_prior = True  # without a closed form, the rate would be estimated by a sample of another distribution

    def sample(self, posterior: Distribution) -> Tensor:
        noise = (posterior.rsample() - posterior.mean) / posterior.stddev
        return posterior.mean + noise * posterior.stddev.log()


def factors(distribution: Distribution) -> Distribution:
    """The one-dimensional distributions of which a factorised one, with event `(latent_dim,)`, is made."""
    return distribution.base_dist if isinstance(distribution, Independent) else distribution


def _rate(posterior: Distribution, prior: Distribution, z: Tensor) -> Tensor:
    try:
        return kl_divergence(posterior, prior)
    except NotImplementedError:
        return posterior.log_prob(z) - prior.log_prob(z)


def _squared_mmd(one: Tensor, other: Tensor) -> Tensor:
    """Unbiased estimate from samples `(B, latent_dim)` of two distributions, a scalar."""
    count, dimension = one.shape
    if count == 1:
        return one.new_zeros(())

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        distances = (a.unsqueeze(1) - b.unsqueeze(0)).square().sum(2)
        return (-distances / (2 * dimension)).exp()

    within = sum(kernel(a, a).sum() - count for a in (one, other)) / (count * (count - 1))
    return within - 2 * kernel(one, other).mean()


def _at_least(name: str, value: Number, least: float) -> Number:
    if not value >= least:
        raise ValueError(f"{name}: must be a number of at least {least}, got {value}")
    return value
