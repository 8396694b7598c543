"""β-TCVAE: the total correlation of the code has its own weight."""

import math

from ..data.batch import Batch
from ..rates import marginal_log_prob, rate
from .checks import at_least
from .elbo import ELBO
from .objective import Model, Terms

__all__ = ["TC"]


class TC(ELBO):
    """distortion + rate + (β − 1)·TC(z): the total correlation KL(q(z) ‖ Π_j q(z_j)) has weight β instead of 1.

    q(z) and q(z_j) are estimated by the mixture of the batch's posteriors. (Minibatch-weighted sampling as published
    differs by a constant that depends on the size of the data set and has no gradient.)

    Args:
        beta: β, at least 0; 1 is the ELBO.

    Raises:
        ValueError: for a negative weight.

    Source: Chen et al. (2018), β-TCVAE, equations 2 and 4, https://arxiv.org/abs/1802.04942.
    """

    def __init__(self, beta: float = 4.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = self.sample(posterior)
        distortion = -model.decode(z, batch.labels).log_prob(batch.images)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        # [i, j]: code i under the posterior of image j; [i, j, k]: its dimension k alone
        joint, marginal = posterior.log_prob(z.unsqueeze(1)), marginal_log_prob(posterior, z.unsqueeze(1))
        if marginal is None:
            raise ValueError(f"objective: TC needs the posterior's marginals, which {type(posterior).__name__} lacks")
        log_count = math.log(len(z))
        correlation = joint.logsumexp(1) - log_count - (marginal.logsumexp(1) - log_count).sum(1)
        loss = distortion + found + (self.beta - 1) * correlation
        return {"loss": loss, "distortion": distortion, "rate": found, "total_correlation": correlation}
