"""The evidence lower bound with free bits."""

import torch
from torch.distributions import Independent

from ..data.batch import Batch
from ..rates import level_rates, rate, rates
from .checks import at_least, require_independent_prior
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["FreeBits"]


class FreeBits(ELBO):
    """distortion + Σ_j max(λ, batch mean of rate_j): pushing a dimension's rate below λ nats gains nothing.

    The sum goes over groups of dimensions instead, with λ nats for each dimension in a group, where they do not have
    rates of their own: over the levels of a hierarchy, or a single group if the posterior's dimensions depend on each
    other.

    Args:
        nats: λ per latent dimension, at least 0.

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
        levels = [(level.sum(1, keepdim=True), level.shape[1]) for level in level_rates(posterior, prior, z)]
        if levels:
            groups = levels
        elif isinstance(posterior, Independent):
            groups = [(rates(posterior, prior), 1)]
        else:
            groups = [(rate(posterior, prior, z).unsqueeze(1), z.shape[1])]
        # Each is (B, groups) with so many dimensions in a group.
        loss = distortion + sum(found.mean(0).clamp(min=self.nats * size).sum() for found, size in groups)
        terms = {"loss": loss, "distortion": distortion, "rate": torch.cat([found for found, _ in groups], 1).sum(1)}
        return terms | {f"rate_level_{number}": level.squeeze(1) for number, (level, _) in enumerate(levels, 1)}
