"""A prior for each class."""

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal
from torch.nn.functional import embedding

from .prior import Prior

__all__ = ["ClassConditional"]


class ClassConditional(Prior):
    """A learned normal distribution for each class, p(z|y) = N(μ_y, diag σ_y²); p(z) is their even mixture.

    All start as N(0, I).

    Args:
        latent_dim: dimension of z.
        classes: number of classes, at least 1; labels are numbers from 0.

    Source: the prior of each mixture component in Jiang et al. (2017), equations 2 and 3,
        https://arxiv.org/abs/1611.05148, with y observed.
    """

    conditional = True
    needs_all_labels = True

    def __init__(self, latent_dim: int, classes: int = 10) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: must be a whole number of at least 1, got {classes}")
        self.classes = classes
        self.means = nn.Parameter(torch.zeros(classes, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(classes, latent_dim))

    def distribution(self, labels: Tensor | None = None) -> Independent | MixtureSameFamily:
        """Returns p(z|y), batch `(B,)`, for labels `(B,)`, none of which may be unknown; p(z), batch `()`, for None."""
        if labels is not None:
            return _normal(embedding(labels, self.means), embedding(labels, self.log_scales))
        weights = Categorical(logits=self.means.new_zeros(self.classes), validate_args=False)
        return MixtureSameFamily(weights, _normal(self.means, self.log_scales), validate_args=False)


def _normal(means: Tensor, log_scales: Tensor) -> Independent:
    return Independent(Normal(means, log_scales.exp(), validate_args=False), 1, validate_args=False)
