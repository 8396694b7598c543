"""The sampler as the book prints it: an ablation."""

from torch import Tensor
from torch.distributions import Distribution

from .checks import require_independent_prior
from .elbo import ELBO
from .objective import Model

__all__ = ["AsPrinted"]


class AsPrinted(ELBO):
    """The ELBO with the sampler as printed in the book, z = μ + ε·(½ log σ²): an ablation, not a bound.

    The standard deviation is exp(½ log σ²); the printed version lacks the exponential. At log σ² = 0, where the rate
    is smallest, this sampler adds no noise, so codes cost little and the model is close to a plain autoencoder.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16, as printed.
    """

    def check(self, model: Model) -> None:
        # Without a closed form, the rate would be estimated with a sample from a different distribution.
        require_independent_prior(self, model)

    def sample(self, posterior: Distribution) -> Tensor:
        try:
            mean, deviation = posterior.mean, posterior.stddev
        except NotImplementedError:  # raised by PyTorch for distributions without closed form
            name = type(posterior).__name__
            reason = f"AsPrinted needs a posterior with a known standard deviation, such as diagonal, got {name}"
            raise ValueError(f"objective: {reason}") from None
        noise = (posterior.rsample() - mean) / deviation
        return mean + noise * deviation.log()
