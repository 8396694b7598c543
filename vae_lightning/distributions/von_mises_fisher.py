"""The von Mises-Fisher distribution on the unit sphere.

All of it rests on one integral over the angle θ between z and its mean direction μ, whose density is
proportional to

    exp(κ (cos θ − 1)) sin^(d−2) θ,     0 ≤ θ ≤ π.

Its total is the modified Bessel function of the normalising constant (https://dlmf.nist.gov/10.32.E2, scaled by e^−κ),
its mean cosine is the ratio of two of them, and its partial integrals are the distribution function that sampling
inverts. Gauss-Legendre quadrature on panels that cover the angles of more than 1 − 1e-16 of the mass gives each to 64
bits for any κ ≥ 0, with derivatives, without branches on values: nothing is read back from the device, and the noise is
a fixed number of normal variables. (Rejection, as in Wood 1994 and Davidson et al. 2018, has neither property.)
"""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution, constraints, register_kl
from torch.nn.functional import normalize

from .sphere import SphericalUniform, log_area, unit_sphere

__all__ = ["VonMisesFisher"]

ITERATIONS = 12  # of Newton's method, safeguarded by bisection; it needs about 5


@cache
def _rule(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """Nodes and weights of Gauss-Legendre quadrature on [0, 1]; kept, because a CUDA graph cannot copy them there."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    with torch.inference_mode(mode=False):  # training may come later
        on_unit_interval = torch.tensor(np.stack([(1 + nodes) / 2, weights / 2]), dtype=dtype, device=device)
        return on_unit_interval[0], on_unit_interval[1]


class VonMisesFisher(Distribution):
    """q(z) ∝ exp(κ μᵀz) on the unit sphere in R^d, d ≥ 2; densities are with respect to its area.

    Samples are reparameterised: z = μ cos θ + v sin θ, where v is uniform among the directions orthogonal to μ, and
    θ is the angle's quantile of a uniform variable. Its derivative by κ is the implicit one of Figurnov et al. (2018),
    https://arxiv.org/abs/1805.08498.

    Args:
        loc: μ `(…, d)`, of length 1.
        concentration: κ `(…)`, at least 0; 0 is the uniform distribution.

    Source: Davidson et al. (2018), https://arxiv.org/abs/1804.00891; Mardia and Jupp (2000), *Directional Statistics*,
    section 9.3.
    """

    arg_constraints = {"loc": unit_sphere, "concentration": constraints.nonnegative}  # noqa: RUF012
    support = unit_sphere
    has_rsample = True

    def __init__(self, loc: Tensor, concentration: Tensor, validate_args: bool | None = None) -> None:
        self.loc = loc
        self.concentration = concentration
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=validate_args)
        # PyTorch has no 64 bits for Apple's GPUs.
        precise = torch.float32 if loc.device.type == "mps" else torch.float64
        self._angle = _Angle(concentration.to(torch.promote_types(concentration.dtype, precise)), loc.shape[-1])

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def mean(self) -> Tensor:
        return self._cosine(1).unsqueeze(-1) * self.loc

    @property
    def variance(self) -> Tensor:
        along, across = self._variances()
        return across + (along - across) * self.loc.square()

    @property
    def covariance_matrix(self) -> Tensor:
        """`(…, d, d)`."""
        along, across = (value.unsqueeze(-1) for value in self._variances())
        identity = torch.eye(self.loc.shape[-1], dtype=self.loc.dtype, device=self.loc.device)
        return across * identity + (along - across) * self.loc.unsqueeze(-1) * self.loc.unsqueeze(-2)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        # One draw for the angle and the direction, so that processes can share it out by image.
        noise = torch.randn(*shape[:-1], shape[-1] + 1, dtype=self.loc.dtype, device=self.loc.device)
        angle = self._angle.quantile(torch.special.ndtr(noise[..., -1].to(self._angle.dtype))).to(self.loc.dtype)
        across = noise[..., :-1] - (noise[..., :-1] * self.loc).sum(-1, keepdim=True) * self.loc
        angle = angle.unsqueeze(-1)
        return angle.cos() * self.loc + angle.sin() * normalize(across, dim=-1)

    def log_prob(self, z: Tensor) -> Tensor:
        # κ (μᵀz − 1), without cancellation where z is close to μ
        exponent = -self.concentration * (z - self.loc).square().sum(-1) / 2
        return exponent - self._log_total

    def entropy(self) -> Tensor:
        return self._log_total + self.concentration * self._cosine_gap

    @property
    def _log_total(self) -> Tensor:
        """Logarithm of ∫ exp(κ (μᵀz − 1)) dz over the sphere, `(…)`."""
        return (self._angle.log_total + log_area(self.loc.shape[-1] - 1)).to(self.loc.dtype)

    @property
    def _cosine_gap(self) -> Tensor:
        """E[1 − μᵀz], `(…)`."""
        return self._angle.mean(lambda angle: 2 * (angle / 2).sin().square()).to(self.loc.dtype)

    def _cosine(self, power: int) -> Tensor:
        """E[(μᵀz)^power], `(…)`."""
        return self._angle.mean(lambda angle: angle.cos() ** power).to(self.loc.dtype)

    def _variances(self) -> tuple[Tensor, Tensor]:
        """Variances along μ and in each direction across, `(…, 1)`."""
        across = self._angle.mean(lambda angle: angle.sin().square()) / (self.loc.shape[-1] - 1)
        mean = self._angle.mean(Tensor.cos)
        along = self._angle.mean(lambda angle: (angle.cos() - mean.unsqueeze(-1)).square())
        return along.to(self.loc.dtype).unsqueeze(-1), across.to(self.loc.dtype).unsqueeze(-1)


@register_kl(VonMisesFisher, SphericalUniform)
def _(q: VonMisesFisher, p: SphericalUniform) -> Tensor:
    """Davidson et al. (2018), equation 15: the difference of the entropies."""
    return p.entropy() - q.entropy()


class _Angle:
    """The distribution of the angle to the mean direction.

    Args:
        concentration: κ `(…)`.
        dimensions: d.
    """

    def __init__(self, concentration: Tensor, dimensions: int) -> None:
        self.concentration = concentration.unsqueeze(-1)
        self.power = dimensions - 2
        self.dtype = concentration.dtype
        kappa = self.concentration.detach()
        # The most likely angle solves κ sin²θ = (d − 2) cos θ. The density is scaled to 1 there.
        cosine = 2 * kappa / (self.power + (self.power**2 + 4 * kappa.square()).sqrt()).clamp(min=1e-300)
        mode = cosine.clamp(max=1).acos()
        self._scale = torch.zeros_like(kappa)
        self._scale = self._log_density(mode).detach()
        # 2 sin(θ/2) √κ has lighter tails than a chi variable with d − 1 degrees of freedom.
        reach = (math.sqrt(dimensions - 1) + 9) / (2 * kappa.sqrt())
        panels = 8 + 4 * math.ceil(math.sqrt(dimensions))
        self._width = 2 * reach.clamp(max=1).asin() / panels  # (…, 1)
        self._starts = self._width * torch.arange(panels, dtype=self.dtype, device=kappa.device)  # (…, panels)
        self._masses = self._integral(self._starts, self._width)
        self._total = self._masses.sum(-1)

    @property
    def log_total(self) -> Tensor:
        """Logarithm of ∫ exp(κ (cos θ − 1)) sin^(d−2) θ dθ, `(…)`."""
        return self._total.log() + self._scale.squeeze(-1)

    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the expectation of a function of the angle, `(…)`."""
        return self._integral(self._starts, self._width, function).sum(-1) / self._total

    def quantile(self, probability: Tensor) -> Tensor:
        """Returns the angles `(…)` below which the probabilities `(…)` lie, differentiable by κ."""
        cumulative = (self._masses.cumsum(-1) - self._masses) / self._total.unsqueeze(-1)
        with torch.no_grad():
            panel = (probability.unsqueeze(-1) >= cumulative).sum(-1, keepdim=True) - 1
            panel = panel.clamp(min=0)
            start, width = self._at(self._starts, panel), self._width.expand(panel.shape)
            below = self._at(cumulative, panel)
            low, high = start, start + width
            angle = (low + high) / 2
            for _ in range(ITERATIONS):
                excess, density = self._excess(angle, start, below, probability)
                low, high = torch.where(excess > 0, low, angle), torch.where(excess > 0, angle, high)
                step = angle - excess / density.clamp(min=1e-300)
                angle = torch.where((step >= low) & (step <= high), step, (low + high) / 2)
        # The last step of Newton's method is nil, but for its derivative: −(∂F/∂κ) / (∂F/∂θ).
        excess, density = self._excess(angle, start, self._at(cumulative, panel), probability)
        step = excess / density.detach().clamp(min=1e-300)
        return (angle - (step - step.detach())).squeeze(-1)

    def _excess(self, angle: Tensor, start: Tensor, below: Tensor, probability: Tensor) -> tuple[Tensor, Tensor]:
        """The distribution function minus a probability, and the density, at angles `(…, 1)` of known panels."""
        total = self._total.unsqueeze(-1)
        inside = self._integral(start, angle - start) / total
        return below + inside - probability.unsqueeze(-1), self._log_density(angle).exp() / total

    def _at(self, values: Tensor, panel: Tensor) -> Tensor:
        return values.expand(*panel.shape[:-1], values.shape[-1]).gather(-1, panel)

    def _integral(self, start: Tensor, width: Tensor, function: Callable[[Tensor], Tensor] = torch.ones_like) -> Tensor:
        """Integrals of the scaled density, times a function, from `start` over `width`."""
        nodes, weights = _rule(start.dtype, start.device)
        angles = start + nodes.view(-1, *[1] * start.ndim) * width
        values = self._log_density(angles).exp() * function(angles)
        return torch.tensordot(weights, values, dims=1) * width

    def _log_density(self, angle: Tensor) -> Tensor:
        exponent = -2 * self.concentration * (angle / 2).sin().square()
        return exponent + torch.xlogy(self.power, angle.sin()) - self._scale
