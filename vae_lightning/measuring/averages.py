"""The bound and other averages over all test images, and the use of the latent space."""

import logging
import math
from fractions import Fraction

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributions import Distribution

from ..data.batch import Batch
from ..data.sizes import at_once
from ..metrics import bounds, codes
from ..posteriors import point
from ..progress import PATIENCE, duration, estimate
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)


def measure(subject: Subject) -> Metrics:
    """Returns the metrics of single images, as means over the test images, and those of the aggregate posterior."""
    model = subject.model
    samples = subject.sizes.bound_samples if model.has_bound and subject.sizes.bound_images else 0
    posteriors, priors, usage = codes.Aggregate(), codes.Aggregate(), codes.Usage()
    errors, bound = Average(), Bound(samples)
    with subject.progress.step(
        f"{'bound' if samples else 'reconstructions'} of test images", subject.batches
    ) as advance:
        for number, batch in enumerate(subject.test_batches()):
            images, labels = batch
            if not number:
                total = subject.batches * len(images)  # or a few less
                share = Fraction(min(subject.sizes.bound_images, total), total)
            posterior, prior = model.encode(images, labels), model.prior_distribution(labels)
            if samples and not number:
                _announce(subject, batch, posterior, share)
            posteriors.update(posterior)
            usage.update(posterior)
            if prior.batch_shape:  # it depends on the labels
                priors.update(prior)
            errors.update(bounds.squared_error(images, model.decode(point(posterior), labels).mean))
            if model.has_bound:
                with isolate_rng():  # neither depends on the other's samples
                    torch.manual_seed(number)
                    elbo = bounds.elbo(model, batch, posterior, prior)
                    bound.elbo.update(elbo)
                    quota = math.ceil(share * bound.elbo.count) - bound.curve.count
                    some = torch.randperm(len(images))[:quota].sort().values
            if samples and len(some):
                part = _chosen(batch, some)
                of_part = posterior if part is batch else model.encode(*part)
                bound.update(bounds.importance_weights(model, part, of_part, samples, advance=advance), elbo[some])
            else:
                advance(1)
        if not priors.count:
            priors.update(prior)
    subject.arrays |= bound.arrays
    return {
        "mse": errors.mean.item(),
        "active_units": float(codes.active_units(posteriors.covariance_of_means, priors.covariance)),
        "posterior_mean_gap": (posteriors.mean - priors.mean).square().mean().sqrt().item(),
        "posterior_covariance_gap": (posteriors.covariance - priors.covariance).norm().item() / model.latent_dim**0.5,
        **usage.metrics,
        **({"elbo_stderr": bound.elbo.error.item()} if bound.elbo.count else {}),
        **bound.metrics,
        **_gap(subject, bound),
    }


class Average:
    """Means over images and their standard errors, gathered batch by batch in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def update(self, values: Tensor) -> None:
        """Adds values `(…, B)` of B images."""
        values = values.cpu().double()
        self.count += values.shape[-1]
        self._sum = self._sum + values.sum(-1)
        self._squares = self._squares + values.square().sum(-1)

    @property
    def mean(self) -> Tensor:
        """Means over the images `(…)`."""
        return torch.as_tensor(self._sum / self.count)

    @property
    def variance(self) -> Tensor:
        """Variances over the images `(…)`."""
        return (torch.as_tensor(self._squares / self.count) - self.mean.square()).clamp(min=0)

    @property
    def error(self) -> Tensor:
        """Standard errors of the means `(…)`."""
        return (self.variance / self.count).sqrt()


class Bound:
    """The importance-weighted bound over its number of samples, and what tells whether it has settled.

    All bounds are of the same weights; see `vae_lightning.metrics.bounds.bound_with`. Where only some images have
    weights, what their bounds are above their elbo is added to the elbo of all: images differ far more in the elbo than
    in that. It is the difference estimator of sampling in two phases (Cochran, Sampling Techniques, 1977, chapter 12).

    Args:
        samples: for each image; without any, there are no metrics.

    Attributes:
        elbo: of all images, with one sample each.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.counts = bounds.sample_counts(samples)
        self.elbo = Average()
        self.curve, self.above, self.gap, self.rise, self.share = (Average() for _ in range(5))

    def update(self, log_weights: Tensor, elbo: Tensor) -> None:
        """Adds log-weights `(samples, B)` of B images, and their elbo `(B,)` as it is among those of all."""
        curve = torch.stack([bounds.bound_with(log_weights, count) for count in self.counts])
        self.curve.update(curve)
        self.above.update(curve.cpu().double() - elbo.cpu())
        self.gap.update(curve[-1] - curve)
        if self.samples > 1:
            self.rise.update(curve[-1] - bounds.bound_with(log_weights, self.samples // 2))
            self.share.update(bounds.effective_share(log_weights))

    @property
    def mean(self) -> Tensor:
        """The bounds of all images `(counts,)`."""
        return self.elbo.mean + self.above.mean

    @property
    def error(self) -> Tensor:
        """Their standard errors `(counts,)`."""
        of_some = self.above.variance * (1 / self.above.count - 1 / self.elbo.count)
        return (self.curve.variance / self.elbo.count + of_some).sqrt()

    @property
    def metrics(self) -> Metrics:
        if not self.samples:
            return {}
        found = {"iw_bound": self.mean[-1].item(), "iw_bound_stderr": self.error[-1].item()}
        if self.samples > 1:
            found |= {
                "iw_bound_rise": self.rise.mean.item(),
                "iw_bound_rise_stderr": self.rise.error.item(),
                "effective_sample_share": self.share.mean.item(),
            }
        return found

    @property
    def arrays(self) -> dict[str, Tensor]:
        """The curve, each `(counts,)`; `bound_gap_stderr` is the error of the difference from the last bound."""
        if not self.samples:
            return {}
        return {
            "bound_samples": torch.tensor(self.counts),
            "bound": self.mean,
            "bound_stderr": self.error,
            "bound_gap_stderr": self.gap.error,
        }


def _gap(subject: Subject, test: Bound) -> Metrics:
    """The elbo of training images, at most as many as test images, and by how much it is above that of test images.

    Both are means of one-sample bounds, of which test images have several.
    """
    count = min(subject.sizes.training_images, test.elbo.count)
    if not count or not test.samples:
        return {}
    train = Average()
    with subject.progress.step("elbo of training images"):
        for part in parts(subject.examples("train", count)):
            train.update(bounds.importance_weighted_bound(subject.model, part.on(subject.model.device), 1))
    return {
        "elbo_training": train.mean.item(),
        "generalisation_gap": (train.mean - test.mean[0]).item(),
        "generalisation_gap_stderr": (train.error.square() + test.error[0].square()).sqrt().item(),
    }


def _chosen(batch: Batch, some: Tensor) -> Batch:
    """Some images of a batch, by their numbers in order; the batch itself if these are all."""
    images, labels = batch
    if len(some) == len(images):
        return batch
    return Batch(images[some], None if labels is None else labels[some])


def _announce(subject: Subject, batch: Batch, posterior: Distribution, share: Fraction) -> None:
    """Logs how long the bound will take, if it is long, from a piece of it; leaves the random state as it was.

    Args:
        subject: what is measured.
        batch: of its test images.
        posterior: of these.
        share: of the images that have a bound.
    """
    asked = subject.sizes.bound_samples
    samples = min(asked, max(1, at_once(batch.images.shape[1:], batch.images.device) // len(batch.images)))
    with isolate_rng():
        seconds = estimate(
            lambda: bounds.importance_weights(subject.model, batch, posterior, samples).sum().item(),
            float(share) * subject.batches * asked / samples,
        )
    if seconds > PATIENCE:
        log.info(
            "measuring  the bound with %s samples for each test image will take about %s",
            f"{asked:,}",
            duration(seconds),
        )
