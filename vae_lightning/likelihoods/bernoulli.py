"""Bernoulli pixels, and their continuous relatives."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Independent

from ..distributions import TruncatedExponential
from .likelihood import Likelihood

__all__ = ["Bernoulli", "ContinuousBernoulli"]


class Bernoulli(Likelihood):
    """Independent Bernoulli pixels; the raw parameters are logits.

    On binary images, `log_prob` is a log-likelihood. On grey images, as in the chapter, it is the negative binary
    cross entropy: a loss bounded below by the entropy of the pixels, but not a likelihood.
    """

    def forward(self, raw: Tensor) -> Independent:
        return Independent(PixelBernoulli(logits=raw, validate_args=False), 3, validate_args=False)

    def metrics(self, x: Tensor, distortion: Tensor, rate: Tensor) -> Mapping[str, Tensor]:
        return {"distortion_above_floor": distortion - self.floor(x)}

    def floor(self, x: Tensor) -> Tensor:
        """Returns the lowest distortion of images `(B, C, H, W)`, the entropy of their pixels, `(B,)`; 0 if binary."""
        return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


class ContinuousBernoulli(Likelihood):
    """Independent pixels with density proportional to λ^x (1 − λ)^(1 − x) on [0, 1]; the raw parameters are λ's logits.

    It adds the normaliser that binary cross entropy lacks on grey images. In terms of the logit η, the density is that
    of an exponential variable truncated to [0, 1], η e^(ηx) / (e^η − 1).

    Source: Loaiza-Ganem and Cunningham (2019), https://arxiv.org/abs/1907.06845.
    """

    def forward(self, raw: Tensor) -> Independent:
        return Independent(TruncatedExponential(raw), 3, validate_args=False)
