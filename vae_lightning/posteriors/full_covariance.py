"""A Gaussian posterior whose dimensions depend on each other."""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, MultivariateNormal, Normal, register_kl

from .gaussian import GaussianHead

__all__ = ["FullCovarianceHead"]


class FullCovarianceHead(nn.Module):
    """q(z|x) = N(μ, L Lᵀ), L lower triangular with a positive diagonal: linear maps to μ, log L_jj and the rest of L.

    L has latent_dim (latent_dim + 1) / 2 entries, so this is for up to about 100 dimensions.

    Args:
        features: number of input features.
        latent_dim: dimension of z.

    Source: Kingma and Welling (2019), section 2.5.1, https://arxiv.org/abs/1906.02691.
    """

    rows: Tensor
    columns: Tensor

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.diagonal = GaussianHead(features, latent_dim)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, -1)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("columns", columns, persistent=False)
        self.below = nn.Linear(features, latent_dim * (latent_dim - 1) // 2) if latent_dim > 1 else None

    def forward(self, features: Tensor) -> MultivariateNormal:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        independent = self.diagonal(features)
        factor = torch.diag_embed(independent.stddev)
        if self.below is not None:
            factor[..., self.rows, self.columns] = self.below(features).to(factor.dtype)
        return MultivariateNormal(independent.mean, scale_tril=factor, validate_args=False)


@register_kl(MultivariateNormal, Independent)
def _(q: MultivariateNormal, p: Independent) -> Tensor:
    """In closed form under a prior of independent normal dimensions N(m_j, s_j²), such as `standard`.

    ½ Σ_j [(Σ_jj + (μ_j − m_j)²) / s_j² − 1] − Σ_j log(L_jj / s_j)
    """
    if type(p.base_dist) is not Normal or len(p.event_shape) != 1:
        raise NotImplementedError  # the rate is estimated
    squares = (q.variance + (q.mean - p.mean).square()) / p.variance
    scales = q.scale_tril.diagonal(dim1=-2, dim2=-1) / p.stddev
    return (0.5 * (squares - 1) - scales.log()).sum(-1)
