"""The evidence lower bound."""

from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..rates import level_rates, rate
from .objective import Model, Objective, Terms

__all__ = ["ELBO"]


class ELBO(Objective):
    """The negative evidence lower bound, distortion + rate, with one posterior sample per image.

    Source: Kingma and Welling (2014), equation 10, https://arxiv.org/abs/1312.6114.
    """

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        prior = model.prior_distribution(batch.labels)
        found = rate(posterior, prior, z)
        terms = {"loss": self.combine(distortion, found), "distortion": distortion, "rate": found}
        levels = level_rates(posterior, prior, z)
        return terms | {f"rate_level_{number}": level.sum(1) for number, level in enumerate(levels, 1)}

    def sample(self, posterior: Distribution) -> Tensor:
        """Returns reparameterised samples `(B, latent_dim)`; for a Gaussian, z = μ + ε·σ with ε ~ N(0, I)."""
        return posterior.rsample()

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        """Returns the loss `(B,)` from the two terms."""
        return distortion + rate
