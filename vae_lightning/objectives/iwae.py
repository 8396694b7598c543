"""The importance-weighted bound."""

import math

from ..data.batch import Batch
from .checks import at_least
from .objective import Model, Objective, Terms

__all__ = ["IWAE"]


class IWAE(Objective):
    """The negative importance-weighted bound, −log 1/K Σ_k p(x, z_k)/q(z_k|x).

    Distortion and rate are unweighted means over the K samples.

    Args:
        samples: K, at least 1; 1 is the ELBO with a sampled rate.

    Raises:
        ValueError: for fewer than one sample.

    Source: Burda, Grosse and Salakhutdinov (2016), equation 8, https://arxiv.org/abs/1509.00519.
    """

    def __init__(self, samples: int = 8) -> None:
        super().__init__()
        self.samples = at_least("samples", samples, 1)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = posterior.rsample((self.samples,))
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        rate = posterior.log_prob(z) - prior.log_prob(z)
        loss = math.log(self.samples) - (-distortion - rate).logsumexp(0)
        return {"loss": loss, "distortion": distortion.mean(0), "rate": rate.mean(0)}
