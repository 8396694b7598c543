"""The importance-weighted bound."""

from ..data.batch import Batch
from .checks import at_least
from .importance import importance_bound, importance_terms
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
        distortion, rate = importance_terms(model, batch, self.samples)
        return {"loss": importance_bound(-distortion - rate), "distortion": distortion.mean(0), "rate": rate.mean(0)}
