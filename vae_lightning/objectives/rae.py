"""Regularised autoencoders: a deterministic code, kept small, and a decoder that is kept smooth."""

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..posteriors import point
from ..rates import known_rate
from .checks import at_least, require_fixed_prior
from .objective import Model, Objective, Terms

__all__ = ["RAEGP", "RAEL2"]


class RAEL2(Objective):
    """distortion + β·½‖z‖² + λ·‖θ‖², with z the point of the posterior, without noise, and θ the decoder's parameters.

    The posterior's spread, if it has any, is not trained, so rate and elbo tell nothing of the model; images are
    sampled from a density that is fitted to the codes afterwards, as the prior has no part in the training.

    Args:
        beta: β, at least 0.
        weight: λ, at least 0.

    Raises:
        ValueError: for a negative weight; for a learned prior.

    Source: Ghosh et al. (2020), section 3 (RAE-L2), https://arxiv.org/abs/1903.12436.
    """

    def __init__(self, beta: float = 0.1, weight: float = 0.01) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)
        self.weight = at_least("weight", weight, 0)

    def check(self, model: Model) -> None:
        require_fixed_prior(self, model)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = point(posterior)
        decoded = model.decode(z, batch.labels)
        distortion = -decoded.log_prob(batch.images)
        penalty = self.penalty(model, z, decoded, batch.labels).expand_as(distortion)
        terms = {
            "loss": distortion + 0.5 * self.beta * z.square().sum(-1) + self.weight * penalty,
            "distortion": distortion,
            "decoder_penalty": penalty,
        }
        return terms | known_rate(posterior, model.prior_distribution(batch.labels), z)

    def penalty(self, model: Model, z: Tensor, decoded: Distribution, labels: Tensor | None) -> Tensor:
        """Returns what keeps the decoder smooth, `(B,)` or a scalar."""
        return sum((parameter.square().sum() for parameter in model.decoder.parameters()), z.new_zeros(()))


class RAEGP(RAEL2):
    """distortion + β·½‖z‖² + λ·‖J‖², with z the point of the posterior, without noise, and J = ∂(mean of p(x|z))/∂z.

    The squared Frobenius norm of J is the mean of ‖vᵀJ‖² over v ~ N(0, I), estimated with one v per image.

    Args:
        beta: β, at least 0.
        weight: λ, at least 0.

    Raises:
        ValueError: for a negative weight; for a learned prior.

    Source: Ghosh et al. (2020), section 3 (RAE-GP), https://arxiv.org/abs/1903.12436; Hutchinson (1990),
    https://doi.org/10.1080/03610919008812866.
    """

    def penalty(self, model: Model, z: Tensor, decoded: Distribution, labels: Tensor | None) -> Tensor:
        mean = decoded.mean
        probe = torch.randn_like(mean)
        if z.requires_grad:
            (slope,) = torch.autograd.grad(mean, z, probe, create_graph=True)
            return slope.square().sum(-1)
        # In evaluation there is no graph, and in inference mode there cannot be one of these tensors.
        with torch.inference_mode(False), torch.enable_grad():
            codes = z.clone().requires_grad_()
            mean = model.decode(codes, None if labels is None else labels.clone()).mean
            (slope,) = torch.autograd.grad(mean, codes, probe.clone())
        return slope.square().sum(-1)
