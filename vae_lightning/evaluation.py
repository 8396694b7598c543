"""What is measured of a trained model: pure functions of tensors and a model."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, kl_divergence

from .objectives import Model

__all__ = ["Codes", "Plane", "encode_all", "normal_lattice", "principal_plane", "square_lattice", "traverse"]


class Codes(NamedTuple):
    """Posteriors of many images.

    Attributes:
        means: posterior means `(N, latent_dim)`.
        labels: classes `(N,)`.
        rates: mean KL(q(z_j|x) ‖ p(z_j)) of each latent dimension, in nats, `(latent_dim,)`.
    """

    means: Tensor
    labels: Tensor
    rates: Tensor


@torch.no_grad()
def encode_all(model: Model, batches: Iterable[tuple[Tensor, Tensor]]) -> Codes:
    """Encodes all batches of images `(B, C, H, W)` and labels `(B,)`; results are on the CPU."""
    means, labels, rates = [], [], []
    for images, classes in batches:
        posterior = model.encode(images)
        means.append(posterior.mean.cpu())
        labels.append(classes.cpu())
        rates.append(kl_divergence(_factors(posterior), _factors(model.prior.distribution())).sum(0).cpu())
    total = sum(len(part) for part in labels)
    return Codes(torch.cat(means), torch.cat(labels), torch.stack(rates).sum(0) / total)


def _factors(distribution: Distribution) -> Distribution:
    """The one-dimensional distributions of which a factorised one is made."""
    return distribution.base_dist if isinstance(distribution, Independent) else distribution


class Plane(NamedTuple):
    """A plane through a cloud of points and the points' coordinates in it.

    Attributes:
        origin: mean of the points `(D,)`.
        axes: orthonormal directions `(2, D)`.
        coordinates: of the points `(N, 2)`.
        explained: share of the total variance along each axis `(2,)`.
    """

    origin: Tensor
    axes: Tensor
    coordinates: Tensor
    explained: Tensor


def principal_plane(points: Tensor) -> Plane:
    """The plane of the two leading principal components of points `(N, D)`, D at least 2."""
    origin = points.mean(0)
    covariance = (points - origin).T.double().cov(correction=0)
    variances, directions = torch.linalg.eigh(covariance)
    axes = directions[:, [-1, -2]].T.to(points)
    # An eigenvector's sign is arbitrary: let its largest component be positive, so that pictures are repeatable.
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * axes.gather(1, largest).sign()
    explained = variances[[-1, -2]].clamp(min=0) / variances.sum().clamp(min=torch.finfo(torch.double).tiny)
    return Plane(origin, axes, (points - origin) @ axes.T, explained.to(points))


def square_lattice(extent: float, cells: int) -> Tensor:
    """Codes `(cells, cells, 2)` at equal steps from −extent to extent; the second coordinate falls from row to row."""
    steps = torch.linspace(-extent, extent, cells)
    return _lattice(steps)


def normal_lattice(cells: int) -> Tensor:
    """Codes `(cells, cells, 2)` at equally likely steps of a standard normal; rows as in `square_lattice`.

    The steps are the quantiles at (i + ½)/cells.
    """
    return _lattice(torch.special.ndtri((torch.arange(cells) + 0.5) / cells))


def _lattice(steps: Tensor) -> Tensor:
    second, first = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    return torch.stack([first, second], dim=-1)


def traverse(code: Tensor, dimensions: Tensor, values: Tensor) -> Tensor:
    """Copies of a code `(D,)` with one dimension at a time set to each value: `(dimensions, values, D)`."""
    codes = code.expand(len(dimensions), len(values), -1).clone()
    for row, dimension in enumerate(dimensions.tolist()):
        codes[row, :, dimension] = values
    return codes
