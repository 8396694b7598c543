"""Likelihoods p(x|z): from a decoder's raw output to a distribution over images.

A likelihood is a module that maps raw parameters `(…, C, H, W)` to a `torch.distributions` object with batch
shape `(…)` and the image as its event. Its `mean` is the picture that is shown. Parameters of its own (a
learned scale, say) belong to it, not to the decoder.
"""

from torch import Tensor, nn
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Independent

__all__ = ["Bernoulli"]


class Bernoulli(nn.Module):
    """Independent Bernoulli pixels; the raw parameters are logits.

    On images of zeros and ones, `log_prob` is a log-likelihood. On grey images, as in the chapter, it is the
    negative binary cross entropy: a loss with the entropy of the pixels as its floor, but no likelihood.
    """

    def forward(self, raw: Tensor) -> Independent:
        return Independent(PixelBernoulli(logits=raw, validate_args=False), 3, validate_args=False)
