"""The usual posterior: independent normal dimensions."""

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

__all__ = ["GaussianHead"]


class GaussianHead(nn.Module):
    """Two linear maps from features to q(z|x) = N(μ, diag σ²), for μ and log σ².

    Args:
        features: number of input features.
        latent_dim: dimension of z.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        # 32 bits even under mixed precision: densities are differences of large numbers.
        mean, log_variance = (
            output.to(torch.promote_types(output.dtype, torch.float32))
            for output in (self.mean(features), self.log_variance(features))
        )
        # Validating the arguments would read them back from the device at every step.
        return Independent(Normal(mean, (0.5 * log_variance).exp(), validate_args=False), 1, validate_args=False)
