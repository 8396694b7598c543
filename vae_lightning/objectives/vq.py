"""The loss of a VQ-VAE: the evidence lower bound, with an encoder that commits to its codes."""

from ..data.batch import Batch
from ..posteriors import CodeSequence
from ..rates import rate
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["VQ"]


class VQ(ELBO):
    """distortion + rate + β·‖encoder output − code‖²: the output stays near the code that was chosen for it.

    The codebook follows the encoder by itself; see `vae_lightning.posteriors.VectorQuantisedHead`. The distortion is a
    sum over pixels, so β is larger than the 0.25 that is usual with means.

    Args:
        beta: β, at least 0.

    Raises:
        ValueError: for a negative β.

    Source: van den Oord et al. (2017), equation 3, https://arxiv.org/abs/1711.00937.
    """

    def __init__(self, beta: float = 10.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        if not isinstance(posterior, CodeSequence):
            name = type(posterior).__name__
            raise ValueError(f"objective: VQ needs codes from a codebook: choose model/posterior=vq, not {name}")
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        loss = distortion + found + self.beta * posterior.commitment
        return {"loss": loss, "distortion": distortion, "rate": found, "commitment": posterior.commitment}
