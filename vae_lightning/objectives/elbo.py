"""The evidence lower bound."""

from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..rates import rate
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
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        return {"loss": self.combine(distortion, found), "distortion": distortion, "rate": found}

    def sample(self, posterior: Distribution) -> Tensor:
        """Returns reparameterised samples `(B, latent_dim)`; for a Gaussian, z = μ + ε·σ with ε ~ N(0, I)."""
        return posterior.rsample()

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        """Returns the loss `(B,)` from the two terms."""
        return distortion + rate
