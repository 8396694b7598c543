"""The evidence lower bound with free bits."""

from torch.distributions import Independent

from ..data.batch import Batch
from ..rates import rate, rates
from .checks import at_least, require_independent_prior
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["FreeBits"]


class FreeBits(ELBO):
    """distortion + Σ_j max(λ, batch mean of rate_j): pushing a dimension's rate below λ nats gains nothing.

    If the posterior's dimensions depend on each other, the rate is no sum over dimensions: there is a single group of
    all, with λ nats for each dimension in it.

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
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        independent = isinstance(posterior, Independent)
        groups = rates(posterior, prior) if independent else rate(posterior, prior, z).unsqueeze(1)
        free = self.nats * z.shape[1] / groups.shape[1]
        loss = distortion + groups.mean(0).clamp(min=free).sum()
        return {"loss": loss, "distortion": distortion, "rate": groups.sum(1)}
