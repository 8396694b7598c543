"""The unit sphere in R^d: great circles, and plots of longitude and latitude."""

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from ..errors import UsageError
from .euclidean import Euclidean
from .lattices import box_lattice
from .space import Chart, Lattice

__all__ = ["Sphere"]

CLOSE = 1e-6  # sine of an angle below which two directions count as one


class Sphere:
    """The unit sphere in R^d: a circle for d = 2, the sphere for d = 3.

    Args:
        latent_dim: d, at least 2.

    Attributes:
        axes: 1 for the circle, whose coordinate is the angle; 2 for the sphere, with longitude and latitude; above, 0.

    Raises:
        ValueError: for a single dimension.
    """

    description: ClassVar[str] = "the unit sphere"
    prior: ClassVar[str] = "model/prior=uniform_sphere"
    posterior: ClassVar[str] = "model/posterior=von_mises_fisher"
    unbounded: ClassVar[bool] = False
    continuous: ClassVar[bool] = True

    def __init__(self, latent_dim: int) -> None:
        if latent_dim < 2:
            raise ValueError(f"latent_dim: the unit sphere needs at least 2 dimensions, got {latent_dim}")
        self.latent_dim = latent_dim
        self.axes = latent_dim - 1 if latent_dim <= 3 else 0

    @property
    def origin(self) -> Tensor:
        """The code `(D,)` at longitude and latitude 0."""
        return one_hot(torch.tensor(0), self.latent_dim).float()

    def interpolate(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Returns codes `(…, steps, D)` at equal steps of the shorter great circle, endpoints included.

        Between opposite codes, where every great circle is as short, it is one of them.
        """
        start, end = normalize(start, dim=-1), normalize(end, dim=-1)
        direction = _tangent(start, end)
        # More precise than the arc cosine where the codes are close, or opposite.
        angle = 2 * torch.atan2((end - start).norm(dim=-1), (end + start).norm(dim=-1))
        turned = torch.linspace(0, 1, steps, device=start.device, dtype=start.dtype) * angle.unsqueeze(-1)
        return _turned(start.unsqueeze(-2), direction.unsqueeze(-2), turned)

    def traverse(self, code: Tensor, dimensions: Tensor, values: Tensor) -> Tensor:
        """Returns `(dimensions, values, D)`: a code `(D,)` turned towards one axis at a time, by angles in radians."""
        code = normalize(code, dim=-1)
        towards = one_hot(dimensions, self.latent_dim).to(code)
        directions = _tangent(code.expand_as(towards), towards)
        return _turned(code, directions.unsqueeze(1), values.to(code).expand(len(dimensions), -1))

    def lattice(self, cells: int, extent: float | None = None) -> Lattice:
        """Returns the codes at equal steps of longitude and latitude, or of the angle on the circle."""
        if extent is not None:
            raise UsageError(f"--extent {extent:g}: a lattice covers the whole unit sphere; leave it out")
        return self._lattice(self._box(cells, math.pi / 2 * (1 - 1 / cells)))

    def quantiles(self, cells: int) -> Lattice:
        """Returns the codes in cells of equal area: at equal steps of longitude and of the sine of the latitude."""
        coordinates = self._box(cells, 1 - 1 / cells)
        return self._lattice(torch.stack([coordinates[..., 0], coordinates[..., 1].asin()], -1))

    def chart(self, points: Tensor) -> Chart:
        """Returns the chart of codes `(N, D)`: angle, longitude and latitude, or two principal components."""
        return Globe(points) if self.axes else Disc(points)

    def _box(self, cells: int, highest: float) -> Tensor:
        """Coordinates `(R, S, 2)` at the middles of cells, so that no longitude occurs twice."""
        turn = math.pi * (1 - 1 / cells)
        return box_lattice(torch.tensor([[-turn, -highest], [turn, highest]]), cells, 1 if self.axes == 1 else cells)

    def _lattice(self, coordinates: Tensor) -> Lattice:
        return Lattice(coordinates, _on_globe(coordinates, self.latent_dim), _names(self.latent_dim))


class Globe:
    """Angle on the circle, or longitude and latitude on the sphere in R³, in radians, of codes `(N, 2)` or `(N, 3)`.

    Longitude is the angle in the plane of the first two dimensions.
    """

    exact = True

    def __init__(self, points: Tensor) -> None:
        self._dimensions = points.shape[-1]
        self.names = _names(self._dimensions)
        self.coordinates = self.project(points)
        variances = self.coordinates.var(0, correction=0)
        self.explained = variances / variances.sum().clamp(min=torch.finfo(points.dtype).tiny)

    def project(self, points: Tensor) -> Tensor:
        """Returns the coordinates `(N, 2)` of codes `(N, D)`."""
        longitude = torch.atan2(points[..., 1], points[..., 0])
        if self._dimensions == 2:
            return torch.stack([longitude, torch.zeros_like(longitude)], -1)
        return torch.stack([longitude, torch.atan2(points[..., 2], points[..., :2].norm(dim=-1))], -1)

    def lift(self, coordinates: Tensor) -> Tensor:
        """Returns the codes `(…, D)` at coordinates `(…, 2)`."""
        return _on_globe(coordinates, self._dimensions)


class Disc:
    """The plane of the two leading principal components of codes `(N, D)`, onto which one half of the sphere projects.

    It is the half on the side of the codes' mean.
    """

    exact = False

    def __init__(self, points: Tensor) -> None:
        self._plane = Euclidean(points.shape[1]).chart(points)
        self.coordinates, self.explained, self.names = self._plane[2:5]
        axes = self._plane.axes
        others = torch.eye(points.shape[1]).to(points) - axes.T @ axes
        mean = others @ self._plane.origin
        self._up = normalize(torch.where(mean.norm() > CLOSE, mean, others[others.diagonal().argmax()]), dim=-1)

    def project(self, points: Tensor) -> Tensor:
        """Returns the coordinates `(N, 2)` of codes `(N, D)`."""
        return self._plane.project(points)

    def lift(self, coordinates: Tensor) -> Tensor:
        """Returns the codes `(…, D)` at coordinates `(…, 2)`; outside the disc, the nearest ones on its edge."""
        axes = self._plane.axes
        inside = (coordinates + axes @ self._plane.origin) @ axes
        height = (1 - inside.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
        return normalize(inside + height * self._up, dim=-1)


def _names(latent_dim: int) -> tuple[str, str]:
    return ("longitude", "latitude") if latent_dim == 3 else ("angle", "")


def _on_globe(coordinates: Tensor, latent_dim: int) -> Tensor:
    longitude, latitude = coordinates.unbind(-1)
    if latent_dim == 2:
        return torch.stack([longitude.cos(), longitude.sin()], -1)
    return torch.stack([longitude.cos() * latitude.cos(), longitude.sin() * latitude.cos(), latitude.sin()], -1)


def _tangent(code: Tensor, towards: Tensor) -> Tensor:
    """The direction `(…, D)` in which a great circle leaves a code `(…, D)` towards another one.

    Where the other one is the same or opposite, it leaves towards the axis that is farthest from both.
    """
    farthest = one_hot(code.abs().argmin(-1), code.shape[-1]).to(code)
    found, other = (axis - (axis * code).sum(-1, keepdim=True) * code for axis in (towards, farthest))
    return normalize(torch.where(found.norm(dim=-1, keepdim=True) > CLOSE, found, other), dim=-1)


def _turned(code: Tensor, direction: Tensor, angle: Tensor) -> Tensor:
    """Codes `(…, D)` turned towards directions `(…, D)` by angles `(…)`."""
    angle = angle.unsqueeze(-1)
    return angle.cos() * code + angle.sin() * direction
