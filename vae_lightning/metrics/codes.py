"""How the latent space is used: the codes of many images, and the distribution that their posteriors add up to."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..data.sizes import at_once
from ..objectives import Model
from ..posteriors import moments, point, symbols
from ..rates import rates

__all__ = ["Aggregate", "Codes", "Usage", "active_units", "decode_all", "encode_all"]


class Codes(NamedTuple):
    """Codes of many images.

    Attributes:
    points: the code that represents each image `(N, latent_dim)`, see `vae_lightning.posteriors.point`.
    labels: classes `(N,)`; None if a batch has none.
    rates: mean rate of each latent dimension, in nats, `(latent_dim,)`, or the total rate `(1,)`, see
        `vae_lightning.rates.rates`.
    """

    points: Tensor
    labels: Tensor | None
    rates: Tensor


@torch.no_grad()
def encode_all(model: Model, batches: Iterable[Batch]) -> Codes:
    """Encodes one or more batches of images; results are on the CPU."""
    points, labels, totals = [], [], []
    for batch in batches:
        posterior = model.encode(*batch)
        points.append(point(posterior).cpu())
        labels.append(None if batch.labels is None else batch.labels.cpu())
        totals.append(rates(posterior, model.prior_distribution(batch.labels)).sum(0).cpu())
    known = [part for part in labels if part is not None]
    images = sum(len(part) for part in points)
    return Codes(
        torch.cat(points),
        torch.cat(known) if len(known) == len(labels) else None,
        torch.stack(totals).sum(0) / images,
    )


@torch.no_grad()
def decode_all(model: Model, codes: Tensor, image_shape: Sequence[int], labels: Tensor | None = None) -> Tensor:
    """Returns decoded means `(…, C, H, W)` of codes `(…, latent_dim)`, some at a time, on the model's device.

    Args:
        model: p(x|z).
        codes: on the model's device.
        image_shape: `(C, H, W)`.
        labels: classes `(N,)` of codes `(N, latent_dim)`.
    """
    size = at_once(image_shape)
    parts = codes.reshape(-1, codes.shape[-1]).split(size)
    classes = [None] * len(parts) if labels is None else labels.split(size)
    decoded = torch.cat([model.decode(part, known).mean for part, known in zip(parts, classes, strict=True)])
    return decoded.unflatten(0, codes.shape[:-1])


class Aggregate:
    """Mean and covariance of an even mixture of distributions, gathered batch by batch in double precision.

    Of the posteriors of all images it is the aggregate posterior q(z) = E_x q(z|x).

    Attributes:
        count: distributions so far.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._outer: Tensor | float = 0.0
        self._within: Tensor | float = 0.0

    def update(self, distribution: Distribution) -> None:
        """Adds distributions with batch `(B,)`, or a single one with batch `()`, and event `(latent_dim,)`."""
        mean, spread = moments(distribution)
        means = mean.cpu().double().reshape(-1, mean.shape[-1])
        self.count += len(means)
        self._sum = self._sum + means.sum(0)
        self._outer = self._outer + means.T @ means
        # Either covariances, or variances where dimensions are independent.
        within = spread.reshape(len(means), *spread.shape[mean.dim() - 1 :]).cpu().double().sum(0)
        self._within = self._within + (torch.diag(within) if within.dim() == 1 else within)

    @property
    def mean(self) -> Tensor:
        """Mean of z: `(latent_dim,)`."""
        return torch.as_tensor(self._sum / self.count)

    @property
    def covariance_of_means(self) -> Tensor:
        """Covariance of the distributions' means: `(latent_dim, latent_dim)`."""
        return torch.as_tensor(self._outer / self.count - torch.outer(self.mean, self.mean))

    @property
    def covariance(self) -> Tensor:
        """Covariance of z: `(latent_dim, latent_dim)`."""
        return self.covariance_of_means + self._within / self.count


class Usage:
    """How often the codes of a codebook are used, gathered batch by batch; nothing for other posteriors."""

    def __init__(self) -> None:
        self._counts: Tensor | None = None

    def update(self, posterior: Distribution) -> None:
        """Counts the codes of posteriors with batch `(B,)`."""
        if found := symbols(posterior):
            indices, size = found
            counts = indices.flatten().bincount(minlength=size).cpu()
            self._counts = counts if self._counts is None else self._counts + counts

    @property
    def metrics(self) -> dict[str, float]:
        """`code_perplexity`, exp of the entropy of their shares, at most their number; and `codes_used`, at least once.

        Empty if no posterior had codes.
        """
        if self._counts is None:
            return {}
        shares = self._counts.double() / self._counts.sum()
        return {
            "code_perplexity": torch.special.entr(shares).sum().exp().item(),
            "codes_used": float((shares > 0).sum()),
        }


def active_units(covariance_of_means: Tensor, covariance_of_prior: Tensor, threshold: float = 0.01) -> int:
    """Returns the number of latent dimensions that the data use.

    Their posterior mean varies over the data by more than the threshold, as a share of their variance under the prior.

    Args:
        covariance_of_means: of the posteriors of all images, `(latent_dim, latent_dim)`.
        covariance_of_prior: the same shape.
        threshold: a share.

    Source: Burda, Grosse and Salakhutdinov (2016), section 5.2, https://arxiv.org/abs/1509.00519, where the prior has
    unit variance. On a sphere, for example, it has 1/d.
    """
    return int((covariance_of_means.diagonal() > threshold * covariance_of_prior.diagonal()).sum())
