"""The evidence lower bound with free bits."""

from ..data.batch import Batch
from ..rates import rates
from .checks import at_least, require_independent_prior
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["FreeBits"]


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
