"""How the latent space is used, and where to look in it."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MixtureSameFamily, kl_divergence

from ..objectives import Model, factors

__all__ = [
    "AggregatePosterior",
    "Codes",
    "Plane",
    "active_units",
    "box_lattice",
    "coordinate_plane",
    "encode_all",
    "normal_lattice",
    "path_unevenness",
    "principal_plane",
    "prior_moments",
    "square_lattice",
    "traverse",
]


class Codes(NamedTuple):
    """Posteriors of many images.

    Attributes:
        means: posterior means `(N, latent_dim)`.
        labels: classes `(N,)`.
        rates: mean KL(q(z_j|x) ‖ p(z_j)) of each latent dimension, in nats, `(latent_dim,)`; estimated by one sample
            where there is no closed form. Under a prior with dependent dimensions they do not add up to the rate.
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
        rates.append(_rates(posterior, model.prior.distribution()).sum(0).cpu())
    total = sum(len(part) for part in labels)
    return Codes(torch.cat(means), torch.cat(labels), torch.stack(rates).sum(0) / total)


def _rates(posterior: Distribution, prior: Distribution) -> Tensor:
    """KL of each dimension, of posteriors with batch `(B,)`: `(B, latent_dim)`."""
    if isinstance(prior, MixtureSameFamily):
        z = posterior.sample()
        # p(z_j) is the mixture of the components' factors.
        parts = factors(prior.component_distribution)
        weights = prior.mixture_distribution.logits.log_softmax(-1)
        log_prior = (parts.log_prob(z.unsqueeze(-2)) + weights.unsqueeze(-1)).logsumexp(-2)
        return factors(posterior).log_prob(z) - log_prior
    return kl_divergence(factors(posterior), factors(prior))


class AggregatePosterior:
    """Mean and covariance of q(z) = E_x q(z|x), gathered batch by batch in double precision.

    Attributes:
        count: images so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._outer: Tensor | float = 0.0
        self._variances: Tensor | float = 0.0

    def update(self, posterior: Distribution) -> None:
        """Adds posteriors with batch `(B,)` and event `(latent_dim,)`."""
        means = posterior.mean.double().cpu()
        self.count += len(means)
        self._sum = self._sum + means.sum(0)
        self._outer = self._outer + means.T @ means
        self._variances = self._variances + posterior.variance.double().cpu().sum(0)

    @property
    def mean(self) -> Tensor:
        """Of z: `(latent_dim,)`."""
        return torch.as_tensor(self._sum / self.count)

    @property
    def covariance_of_means(self) -> Tensor:
        """Of the posterior means: `(latent_dim, latent_dim)`."""
        return torch.as_tensor(self._outer / self.count - torch.outer(self.mean, self.mean))

    @property
    def covariance(self) -> Tensor:
        """Of z: `(latent_dim, latent_dim)`."""
        return self.covariance_of_means + torch.diag(torch.as_tensor(self._variances / self.count))


def active_units(covariance_of_means: Tensor, threshold: float = 0.01) -> int:
    """Number of latent dimensions whose posterior mean varies over the data by more than the threshold.

    Source: Burda, Grosse and Salakhutdinov (2016), section 5.2, https://arxiv.org/abs/1509.00519.
    """
    return int((covariance_of_means.diagonal() > threshold).sum())


def prior_moments(prior: Distribution, samples: int = 20_000) -> tuple[Tensor, Tensor]:
    """Mean `(latent_dim,)` and covariance of a prior, in double precision; of samples unless its factors are known."""
    if isinstance(prior, Independent):
        return prior.mean.double().cpu(), torch.diag(prior.variance.double().cpu())
    z = prior.sample((samples,)).double().cpu()
    return z.mean(0), z.T.cov().reshape(z.shape[1], z.shape[1])


def path_unevenness(pictures: Tensor) -> Tensor:
    """Of pictures `(N, steps, …)` along N paths, the longest step's share of its path's length: `(N,)`.

    1/(steps − 1) is an even transition, 1 a single jump. Steps are measured by the Euclidean distance of the pixels.
    """
    steps = pictures.diff(dim=1).flatten(2).norm(dim=2)
    return steps.amax(1) / steps.sum(1).clamp(min=torch.finfo(steps.dtype).tiny)


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

    def project(self, points: Tensor) -> Tensor:
        """Coordinates `(N, 2)` of points `(N, D)`."""
        return (points - self.origin) @ self.axes.T

    def lift(self, coordinates: Tensor) -> Tensor:
        """Points `(…, D)` of the plane at coordinates `(…, 2)`."""
        return self.origin + coordinates @ self.axes


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


def coordinate_plane(points: Tensor) -> Plane:
    """The plane of the coordinates themselves of points `(N, 2)`; of points `(N, 1)`, the second one is 0."""
    dimension = points.shape[1]
    axes = torch.eye(2, dimension).to(points)
    variances = points.var(0, correction=0)
    explained = torch.zeros(2).to(points)
    explained[:dimension] = variances / variances.sum().clamp(min=torch.finfo(points.dtype).tiny)
    return Plane(torch.zeros(dimension).to(points), axes, points @ axes.T, explained)


def box_lattice(box: Tensor, columns: int, rows: int) -> Tensor:
    """Coordinates `(rows, columns, 2)` at equal steps of a box `(2, 2)`, its lowest and highest corner.

    The second coordinate falls from row to row; a single row lies in the middle.
    """
    first = torch.lerp(box[0, 0], box[1, 0], torch.linspace(0, 1, columns))
    second = torch.lerp(box[1, 1], box[0, 1], torch.linspace(0, 1, rows) if rows > 1 else torch.tensor([0.5]))
    rows_of, columns_of = torch.meshgrid(second, first, indexing="ij")
    return torch.stack([columns_of, rows_of], dim=-1)


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
