"""The Wasserstein autoencoder whose aggregate posterior is matched to the prior by its MMD."""

from collections.abc import Sequence

from torch import Tensor

from ..data.batch import Batch
from ..rates import known_rate
from .checks import at_least, require_fixed_prior
from .elbo import ELBO
from .mmd import prior_samples, squared_mmd
from .objective import Model, Terms

__all__ = ["WAEMMD"]


class WAEMMD(ELBO):
    """distortion + λ·MMD²(q(z), p(z)): only the codes as a whole have to look like the prior, not those of each image.

    The kernel is a sum of inverse multiquadratics, Σ_s C_s/(C_s + ‖a − b‖²) with C_s = 2·d·s in d dimensions, and MMD²
    is estimated without bias, as in `MMD`. The rate is logged, but not part of the loss, so the posterior may become as
    narrow as it likes. The cost of the source is a squared error: choose a Gaussian likelihood for that.

    Args:
        weight: λ, at least 0. MMD² is at most twice the number of scales.
        scales: the values of s.

    Raises:
        ValueError: for a negative weight or scales that are none or not positive; for a learned prior.

    Source: Tolstikhin et al. (2018), equation 4 and algorithm 2, https://arxiv.org/abs/1711.01558; the scales are those
    of the authors' code.
    """

    def __init__(self, weight: float = 100.0, scales: Sequence[float] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)) -> None:
        super().__init__()
        if not scales or not all(scale > 0 for scale in scales):
            raise ValueError(f"scales: must be numbers greater than 0, got {list(scales)}")
        self.weight = at_least("weight", weight, 0)
        self.scales = tuple(scales)

    def check(self, model: Model) -> None:
        require_fixed_prior(self, model)

    def kernel(self, distances: Tensor, dimension: int) -> Tensor:
        """Returns Σ_s C_s/(C_s + ‖a − b‖²) of squared distances."""
        widths = [2 * dimension * scale for scale in self.scales]
        return sum((width / (width + distances) for width in widths), distances.new_zeros(()))

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        divergence = squared_mmd(z, prior_samples(prior, z), self.kernel).expand_as(distortion)
        loss = distortion + self.weight * divergence
        return {"loss": loss, "distortion": distortion, "mmd": divergence} | known_rate(posterior, prior, z)
