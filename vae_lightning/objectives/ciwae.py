"""A convex combination of the evidence lower bound and the importance-weighted bound."""

from ..data.batch import Batch
from .checks import at_least
from .importance import importance_bound, importance_terms
from .objective import Model, Objective, Terms

__all__ = ["CIWAE"]


class CIWAE(Objective):
    """β·(distortion + rate) + (1 − β)·IWAE, both from the same K samples.

    Args:
        beta: β, from 0, which is IWAE, to 1, which is the ELBO with a sampled rate.
        samples: K, at least 1.

    Raises:
        ValueError: for an option out of range.

    Source: Rainforth et al. (2018), section 5, https://arxiv.org/abs/1802.04537.
    """

    def __init__(self, beta: float = 0.5, samples: int = 8) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta: must be a number from 0 to 1, got {beta}")
        self.beta = beta
        self.samples = at_least("samples", samples, 1)

    def forward(self, model: Model, batch: Batch) -> Terms:
        distortion, rate = importance_terms(model, batch, self.samples)
        combined = self.beta * (distortion + rate).mean(0) + (1 - self.beta) * importance_bound(-distortion - rate)
        return {"loss": combined, "distortion": distortion.mean(0), "rate": rate.mean(0)}
