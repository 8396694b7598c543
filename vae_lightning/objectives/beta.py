"""The β-VAE: the evidence lower bound with a weighted rate."""

from torch import Tensor

from .checks import at_least
from .elbo import ELBO

__all__ = ["Beta"]


class Beta(ELBO):
    """distortion + β·rate.

    Args:
        beta: weight of the rate, at least 0; 1 is the ELBO.

    Raises:
        ValueError: for a negative weight.

    Source: Higgins et al. (2017), β-VAE, equation 4, https://openreview.net/forum?id=Sy2fzU9gl.
    """

    def __init__(self, beta: float = 4.0) -> None:
        super().__init__()
        self.beta = at_least("beta", beta, 0)

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.beta * rate
