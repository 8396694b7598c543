"""R^d: straight lines, and plots of the leading two principal components."""

from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from .lattices import normal_lattice, square_lattice
from .space import Lattice

__all__ = ["Euclidean", "Plane", "great_circle"]

NAMES = ("z₁", "z₂")
ONE_NAME = ("z₁", "")  # with a single dimension
EXTENT = 3.0  # half the width of a lattice, in standard deviations of the usual prior


class Plane(NamedTuple):
    """Two coordinates along straight axes: the codes' own, or their leading principal components.

    Attributes:
        origin: `(D,)`.
        axes: orthonormal directions `(2, D)`.
        coordinates: of the points `(N, 2)`.
        explained: fraction of the points' total variance along each axis `(2,)`.
        names: of the axes.
        exact: whether these are the codes' own coordinates rather than a reduction.
    """

    origin: Tensor
    axes: Tensor
    coordinates: Tensor
    explained: Tensor
    names: tuple[str, str]
    exact: bool

    def project(self, points: Tensor) -> Tensor:
        """Returns the coordinates `(N, 2)` of points `(N, D)`."""
        return (points - self.origin) @ self.axes.T

    def lift(self, coordinates: Tensor) -> Tensor:
        """Returns the points `(…, D)` at coordinates `(…, 2)`."""
        return self.origin + coordinates @ self.axes


class Euclidean:
    """R^d: paths are straight lines; above two dimensions, charts show the leading two principal components.

    Args:
        latent_dim: d.

    Attributes:
        axes: number of axes of a lattice over the whole space; 0 if it has too many to draw.
    """

    description: ClassVar[str] = "R^d"
    prior: ClassVar[str] = "model/prior=standard"
    posterior: ClassVar[str] = "model/posterior=diagonal"
    unbounded: ClassVar[bool] = True
    continuous: ClassVar[bool] = True

    def __init__(self, latent_dim: int) -> None:
        self.latent_dim = latent_dim
        self.axes = latent_dim if latent_dim <= 2 else 0

    def interpolate(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Returns codes `(…, steps, D)` at equal steps of a straight line, endpoints included."""
        shares = torch.linspace(0, 1, steps, device=start.device).unsqueeze(1)
        return torch.lerp(start.unsqueeze(-2), end.unsqueeze(-2), shares)

    def traverse(self, code: Tensor, dimensions: Tensor, values: Tensor) -> Tensor:
        """Returns copies `(dimensions, values, D)` of a code `(D,)` with one dimension at a time set to each value."""
        codes = code.expand(len(dimensions), len(values), -1).clone()
        for row, dimension in enumerate(dimensions.tolist()):
            codes[row, :, dimension] = values
        return codes

    @property
    def origin(self) -> Tensor:
        """0 `(D,)`."""
        return torch.zeros(self.latent_dim)

    def lattice(self, cells: int, extent: float | None) -> Lattice:
        """Returns the codes at equal steps from −extent to extent, by default 3."""
        return self._lattice(square_lattice(EXTENT if extent is None else extent, cells))

    def quantiles(self, cells: int) -> Lattice:
        """Returns the codes at equally likely steps of a standard normal distribution."""
        return self._lattice(normal_lattice(cells))

    def _lattice(self, coordinates: Tensor) -> Lattice:
        if self.axes == 1:
            return Lattice(coordinates[:1] * torch.tensor([1.0, 0.0]), coordinates[:1, :, :1], ONE_NAME)
        return Lattice(coordinates, coordinates, NAMES)

    def chart(self, points: Tensor) -> Plane:
        """Returns the chart of codes `(N, D)`; with D = 1 the second coordinate is 0."""
        return _coordinates(points) if self.axes else _principal_plane(points)


def great_circle(start: Tensor, end: Tensor, steps: int) -> Tensor:
    """Returns codes `(steps, D)` that rotate evenly from one code `(D,)` to another, with evenly changing length.

    Falls back to a straight line if both lie on a line through the origin, where the great circle is not unique.

    Source: Shoemake (1985), https://doi.org/10.1145/325165.325242.
    """
    shares = torch.linspace(0, 1, steps, device=start.device).unsqueeze(1)
    lengths = torch.lerp(start.norm(), end.norm(), shares)
    one, other = start / start.norm().clamp(min=1e-12), end / end.norm().clamp(min=1e-12)
    angle = (one @ other).clamp(-1, 1).acos()
    if angle.sin().abs() < 1e-6:
        return torch.lerp(start, end, shares)
    return lengths * (((1 - shares) * angle).sin() * one + (shares * angle).sin() * other) / angle.sin()


def _coordinates(points: Tensor) -> Plane:
    dimension = points.shape[1]
    axes = torch.eye(2, dimension).to(points)
    variances = points.var(0, correction=0)
    explained = torch.zeros(2).to(points)
    explained[:dimension] = variances / variances.sum().clamp(min=torch.finfo(points.dtype).tiny)
    names = NAMES if dimension > 1 else ONE_NAME
    return Plane(torch.zeros(dimension).to(points), axes, points @ axes.T, explained, names, True)


def _principal_plane(points: Tensor) -> Plane:
    origin = points.mean(0)
    covariance = (points - origin).T.double().cov(correction=0)
    variances, directions = torch.linalg.eigh(covariance)
    axes = directions[:, [-1, -2]].T.to(points)
    # An eigenvector's sign is arbitrary: make its largest component positive, so that figures are reproducible.
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * axes.gather(1, largest).sign()
    explained = variances[[-1, -2]].clamp(min=0) / variances.sum().clamp(min=torch.finfo(torch.double).tiny)
    names = tuple(f"principal component {i + 1} ({share:.0%})" for i, share in enumerate(explained))
    return Plane(origin, axes, (points - origin) @ axes.T, explained.to(points), names, False)  # type: ignore[arg-type]
