"""The evidence lower bound with free bits."""

import torch

from ..data.batch import Batch
from ..rates import level_rates, rates
from .checks import at_least, require_independent_prior
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["FreeBits"]


class FreeBits(ELBO):
    """distortion + Σ_j max(λ, batch mean of rate_j): pushing a dimension's rate below λ nats gains nothing.

    In a hierarchy, the sum goes over its levels instead of dimensions.

    Args:
        nats: λ per latent dimension, or per level of a hierarchy, at least 0.

    Raises:
        ValueError: for a negative λ.

    Source: Kingma et al. (2016), appendix C.8, https://arxiv.org/abs/1606.04934, with groups of one dimension or level.
    """

    def __init__(self, nats: float = 0.1) -> None:
        super().__init__()
        self.nats = at_least("nats", nats, 0)

    def check(self, model: Model) -> None:
        prior = model.prior_distribution()
        if not level_rates(prior, prior, torch.zeros(prior.event_shape)):
            require_independent_prior(self, model)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        levels = [level.sum(1) for level in level_rates(posterior, prior, z)]
        groups = torch.stack(levels, 1) if levels else rates(posterior, prior)
        loss = distortion + groups.mean(0).clamp(min=self.nats).sum()
        terms = {"loss": loss, "distortion": distortion, "rate": groups.sum(1)}
        return terms | {f"rate_level_{number}": level for number, level in enumerate(levels, 1)}
