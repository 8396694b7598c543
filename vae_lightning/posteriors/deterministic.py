"""No posterior: a deterministic encoder, which makes the model an autoencoder."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from ..rates import has_density
from .functions import moments, stopped

__all__ = ["DeterministicHead", "Point", "is_deterministic"]


class Point(Distribution):
    """All probability on one code for each image. It has no density, so there is neither a rate nor a bound.

    Args:
        code: `(B, latent_dim)`.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample = True

    def __init__(self, code: Tensor) -> None:
        self.code = code
        super().__init__(code.shape[:-1], code.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.code

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.code)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.code.expand(*sample_shape, *self.code.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        raise ValueError(
            "objective: codes without noise have no rate; choose an objective without one, such as "
            "model/objective=rae_l2 or wae_mmd, or a posterior, such as model/posterior=diagonal"
        )


class DeterministicHead(nn.Linear):
    """A linear map from features to the code.

    Args:
        features: number of input features.
        latent_dim: dimension of z.

    Source: Ghosh et al. (2020), https://arxiv.org/abs/1903.12436, and Tolstikhin et al. (2018),
    https://arxiv.org/abs/1711.01558, train such models.
    """

    def __init__(self, features: int, latent_dim: int) -> None:
        super().__init__(features, latent_dim)

    def forward(self, features: Tensor) -> Point:  # type: ignore[override]
        """Returns the code for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        code = super().forward(features)
        return Point(code.to(torch.promote_types(code.dtype, torch.float32)))


def is_deterministic(encoder: nn.Module) -> bool:
    """Returns whether an encoder's codes have no noise."""
    return any(isinstance(part, DeterministicHead) for part in encoder.modules())


@has_density.register
def _(posterior: Point) -> bool:
    return False


@moments.register
def _(posterior: Point) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.variance


@stopped.register
def _(posterior: Point) -> Point:
    return posterior
