"""The evidence lower bound and close variants that weight or sample distortion and rate differently."""

from typing import TypeVar

from torch import Tensor
from torch.distributions import Distribution, Independent

from ..data.batch import Batch
from ..posteriors import rate, rates
from .objective import Model, Objective, Terms

__all__ = ["ELBO", "AsPrinted", "Beta", "FreeBits", "at_least", "require_independent_prior"]

Number = TypeVar("Number", int, float)


class ELBO(Objective):
    """The negative evidence lower bound, distortion + rate, with one posterior sample per image.

    Source: Kingma and Welling (2014), equation 10, https://arxiv.org/abs/1312.6114.
    """

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        return {"loss": self.combine(distortion, found), "distortion": distortion, "rate": found}

    def sample(self, posterior: Distribution) -> Tensor:
        """Returns reparameterised samples `(B, latent_dim)`; for a Gaussian, z = μ + ε·σ with ε ~ N(0, I)."""
        return posterior.rsample()

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        """Returns the loss `(B,)` from the two terms."""
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
        self.beta = at_least("beta", beta, 0)

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.beta * rate


class FreeBits(ELBO):
    """distortion + Σ_j max(λ, batch mean of rate_j): pushing a dimension's rate below λ nats gains nothing.

    Args:
        nats: λ per latent dimension, at least 0.

    Raises:
        ValueError: for a negative λ.

    Source: Kingma et al. (2016), appendix C.8, https://arxiv.org/abs/1606.04934, with groups of one dimension.
    """

    def __init__(self, nats: float = 0.1) -> None:
        super().__init__()
        self.nats = at_least("nats", nats, 0)

    def check(self, model: Model) -> None:
        require_independent_prior(self, model)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        distortion = -model.decode(self.sample(posterior), batch.labels).log_prob(batch.images)
        by_dimension = rates(posterior, model.prior_distribution(batch.labels))
        loss = distortion + by_dimension.mean(0).clamp(min=self.nats).sum()
        return {"loss": loss, "distortion": distortion, "rate": by_dimension.sum(1)}


class AsPrinted(ELBO):
    """The ELBO with the sampler as printed in the book, z = μ + ε·(½ log σ²): an ablation, not a bound.

    The standard deviation is exp(½ log σ²); the printed version lacks the exponential. At log σ² = 0, where the rate
    is smallest, this sampler adds no noise, so codes cost little and the model is close to a plain autoencoder.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16, as printed.
    """

    def check(self, model: Model) -> None:
        # Without a closed form, the rate would be estimated with a sample from a different distribution.
        require_independent_prior(self, model)

    def sample(self, posterior: Distribution) -> Tensor:
        noise = (posterior.rsample() - posterior.mean) / posterior.stddev
        return posterior.mean + noise * posterior.stddev.log()


def require_independent_prior(objective: Objective, model: Model) -> None:
    """Raises `ValueError` if the dimensions of the model's prior are not independent."""
    prior = model.prior_distribution()
    if not isinstance(prior, Independent):
        name, other = type(objective).__name__, type(prior).__name__
        raise ValueError(f"objective: {name} needs a prior with independent dimensions, such as standard, got {other}")


def at_least(name: str, value: Number, least: float) -> Number:
    """Returns the value of an option; raises `ValueError` if it is below the minimum, or NaN."""
    if not value >= least:
        raise ValueError(f"{name}: must be a number of at least {least}, got {value}")
    return value
