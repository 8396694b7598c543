"""The uniform distribution on the unit sphere."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import normalize

__all__ = ["SphericalUniform", "log_area", "unit_sphere"]


def log_area(dimensions: int) -> float:
    """Returns the logarithm of the area of the unit sphere in R^d, 2 π^(d/2) / Γ(d/2)."""
    return math.log(2) + dimensions / 2 * math.log(math.pi) - math.lgamma(dimensions / 2)


class _UnitSphere(constraints.Constraint):
    event_dim = 1

    def check(self, value: Tensor) -> Tensor:
        return (value.norm(dim=-1) - 1).abs() < 1e-4


unit_sphere = _UnitSphere()


class SphericalUniform(Distribution):
    """The uniform distribution on the unit sphere in R^d; densities are with respect to its area.

    Args:
        like: a tensor `(d,)`, of whose type and on whose device samples are.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = unit_sphere

    def __init__(self, like: Tensor) -> None:
        super().__init__(torch.Size(), like.shape, validate_args=False)
        self._like = like

    @property
    def mean(self) -> Tensor:
        return torch.zeros_like(self._like)

    @property
    def variance(self) -> Tensor:
        return torch.full_like(self._like, 1 / len(self._like))

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        noise = torch.randn(*sample_shape, *self.event_shape, dtype=self._like.dtype, device=self._like.device)
        return normalize(noise, dim=-1)

    def log_prob(self, z: Tensor) -> Tensor:
        return -self.entropy().expand(z.shape[:-1])

    def entropy(self) -> Tensor:
        return self._like.new_full((), log_area(len(self._like)))
