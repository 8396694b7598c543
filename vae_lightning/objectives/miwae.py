"""The mean of several importance-weighted bounds."""

from ..data.batch import Batch
from .checks import at_least
from .importance import importance_bound, importance_terms
from .objective import Model, Objective, Terms

__all__ = ["MIWAE"]


class MIWAE(Objective):
    """The mean of M negative importance-weighted bounds of K samples each.

    The gradient for the encoder has a signal-to-noise ratio that falls with K and rises with M: with many samples,
    this bound, though looser than that of IWAE with M·K, can train the encoder better.

    Args:
        bounds: M, at least 1; 1 is IWAE.
        samples: K, at least 1; 1 is the ELBO with a sampled rate.

    Raises:
        ValueError: for fewer than one bound or sample.

    Source: Rainforth et al. (2018), section 5, https://arxiv.org/abs/1802.04537.
    """

    def __init__(self, bounds: int = 4, samples: int = 4) -> None:
        super().__init__()
        self.bounds = at_least("bounds", bounds, 1)
        self.samples = at_least("samples", samples, 1)

    def forward(self, model: Model, batch: Batch) -> Terms:
        distortion, rate = importance_terms(model, batch, self.bounds * self.samples)
        log_weights = (-distortion - rate).unflatten(0, (self.bounds, self.samples))
        return {
            "loss": importance_bound(log_weights, 1).mean(0),
            "distortion": distortion.mean(0),
            "rate": rate.mean(0),
        }
