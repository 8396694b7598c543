"""A learned mixture of Gaussians as a prior."""

import torch
from torch import nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, MultivariateNormal, Normal

from .prior import Prior

__all__ = ["GaussianMixture"]


class GaussianMixture(Prior):
    """p(z) = Σ_k w_k N(z; μ_k, L_k L_kᵀ) with learned weights, means and scales.

    Args:
        latent_dim: dimension of z.
        components: K, at least 1.
        full: whether components have full covariances, L_k lower triangular, rather than diagonal ones.

    Raises:
        ValueError: for fewer than one component.

    Source: Dilokthanakul et al. (2016), https://arxiv.org/abs/1611.02648; Ghosh et al. (2020), section 4,
    https://arxiv.org/abs/1903.12436, fitted afterwards.
    """

    def __init__(self, latent_dim: int, components: int = 10, full: bool = False) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components: must be at least 1, got {components}")
        self.means = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(components, latent_dim))
        self.below = nn.Parameter(torch.zeros(components, latent_dim, latent_dim)) if full else None  # the diagonal
        self.logits = nn.Parameter(torch.zeros(components))

    def distribution(self) -> MixtureSameFamily:
        components: Distribution
        if self.below is None:
            components = Independent(
                Normal(self.means, self.log_scales.exp(), validate_args=False), 1, validate_args=False
            )
        else:
            factors = self.below.tril(-1) + torch.diag_embed(self.log_scales.exp())
            components = MultivariateNormal(self.means, scale_tril=factors, validate_args=False)
        weights = Categorical(logits=self.logits, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)
