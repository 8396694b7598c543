"""The diagonal Gaussian posterior that the encoders end in."""

import torch
from torch import Tensor, nn
from torch.distributions import Independent

from .engine.shards import SharedNormal

__all__ = ["GaussianHead"]


class GaussianHead(nn.Module):
    """Two linear maps from features to q(z|x) = N(μ, diag σ²), the second giving log σ².

    Args:
        features: number of input features.
        latent_dim: dimension of z.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__()
        self.mean = nn.Linear(features, latent_dim)
        self.log_variance = nn.Linear(features, latent_dim)

    def forward(self, features: Tensor) -> Independent:
        """Posterior of features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        # Under mixed precision the distribution still has 32 bits: its densities are differences of large numbers.
        mean, log_variance = (
            output.to(torch.promote_types(output.dtype, torch.float32))
            for output in (self.mean(features), self.log_variance(features))
        )
        # Validating the arguments would read them back from the device in every step.
        normal = SharedNormal(mean, (0.5 * log_variance).exp(), validate_args=False)
        return Independent(normal, 1, validate_args=False)
