"""The importance-weighted bound with doubly reparameterised gradients."""

import torch

from ..data.batch import Batch
from ..posteriors import stopped
from .importance import importance_bound
from .iwae import IWAE
from .objective import Model, Terms

__all__ = ["DReG"]


class DReG(IWAE):
    """The negative importance-weighted bound; its gradient for the encoder has less variance than that of IWAE.

    With normalised weights w̃_k = w_k/Σ_j w_j, the gradient of the bound is Σ_k w̃_k ∂log w_k for decoder and prior,
    as in IWAE, and Σ_k w̃_k² (∂log w_k/∂z_k) ∂z_k for the encoder: unbiased, and 0 at the exact posterior. A step goes
    back through the decoder twice, once for each.

    Args:
        samples: K, at least 1; 1 is the estimator of Roeder et al. (2017), https://arxiv.org/abs/1703.09194.

    Raises:
        ValueError: for fewer than one sample, or a posterior without `vae_lightning.posteriors.stopped`.

    Source: Tucker et al. (2019), section 3, https://arxiv.org/abs/1810.04152.
    """

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = posterior.rsample((self.samples,))
        code = z.detach().requires_grad_(z.requires_grad)
        distortion = -model.decode(code, batch.labels).log_prob(batch.images)
        rate = stopped(posterior).log_prob(code) - prior.log_prob(code)
        log_weights = -distortion - rate
        loss = importance_bound(log_weights)
        if z.requires_grad:
            # Weighted where they come from: by batch norm, what a sample loses depends on other codes as well.
            squares = log_weights.detach().softmax(0).square()
            (gradient,) = torch.autograd.grad(-(squares * log_weights).sum(), code, retain_graph=True)
            loss = loss + (gradient * (z - z.detach())).sum((0, -1))  # adds 0, with the encoder's gradient
        return {"loss": loss, "distortion": distortion.mean(0), "rate": rate.mean(0)}
