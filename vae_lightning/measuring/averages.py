"""The bound and other averages over all test images, and the use of the latent space."""

import logging

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

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
    samples = subject.sizes.bound_samples if model.has_bound else 0
    posteriors, priors, usage = codes.Aggregate(), codes.Aggregate(), codes.Usage()
    errors, bound, elbo = Average(), Bound(samples), Average()
    with subject.progress.step(
        f"{'bound' if samples else 'reconstructions'} of all test images", subject.batches
    ) as advance:
        for number, batch in enumerate(subject.test_batches()):
            images, labels = batch
            if samples and not number:
                _announce(subject, batch)
            posterior, prior = model.encode(images, labels), model.prior_distribution(labels)
            posteriors.update(posterior)
            usage.update(posterior)
            if prior.batch_shape:  # it depends on the labels
                priors.update(prior)
            errors.update(bounds.squared_error(images, model.decode(point(posterior), labels).mean))
            if model.has_bound:
                with isolate_rng():  # neither depends on the other's samples
                    torch.manual_seed(number)
                    elbo.update(bounds.elbo(model, batch, posterior, prior))
            if samples:
                bound.update(bounds.importance_weights(model, batch, posterior, samples, advance=advance))
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
        **({"elbo_stderr": elbo.error.item()} if elbo.count else {}),
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
        values = values.double().cpu()
        self.count += values.shape[-1]
        self._sum = self._sum + values.sum(-1)
        self._squares = self._squares + values.square().sum(-1)

    @property
    def mean(self) -> Tensor:
        """Means over the images `(…)`."""
        return torch.as_tensor(self._sum / self.count)

    @property
    def error(self) -> Tensor:
        """Their standard errors `(…)`."""
        variance = torch.as_tensor(self._squares / self.count) - self.mean.square()
        return (variance.clamp(min=0) / self.count).sqrt()


class Bound:
    """The importance-weighted bound over its number of samples, and what tells whether it has settled.

    All bounds are of the same weights; see `vae_lightning.metrics.bounds.bound_with`.

    Args:
        samples: for each image; without any, there are no metrics.
    """

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.counts = bounds.sample_counts(samples)
        self.curve, self.gap, self.rise, self.share = Average(), Average(), Average(), Average()

    def update(self, log_weights: Tensor) -> None:
        """Adds log-weights `(samples, B)` of B images."""
        curve = torch.stack([bounds.bound_with(log_weights, count) for count in self.counts])
        self.curve.update(curve)
        self.gap.update(curve[-1] - curve)
        if self.samples > 1:
            self.rise.update(curve[-1] - bounds.bound_with(log_weights, self.samples // 2))
            self.share.update(bounds.effective_share(log_weights))

    @property
    def metrics(self) -> Metrics:
        if not self.samples:
            return {}
        found = {"iw_bound": self.curve.mean[-1].item(), "iw_bound_stderr": self.curve.error[-1].item()}
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
            "bound": self.curve.mean,
            "bound_stderr": self.curve.error,
            "bound_gap_stderr": self.gap.error,
        }


def _gap(subject: Subject, test: Bound) -> Metrics:
    """The elbo of training images, at most as many as test images, and by how much it is above that of test images.

    Both are means of one-sample bounds, of which test images have several.
    """
    count = min(subject.sizes.training_images, test.curve.count)
    if not count:
        return {}
    train = Average()
    with subject.progress.step("elbo of training images"):
        for part in parts(subject.examples("train", count)):
            train.update(bounds.importance_weighted_bound(subject.model, part.on(subject.model.device), 1))
    return {
        "elbo_training": train.mean.item(),
        "generalisation_gap": (train.mean - test.curve.mean[0]).item(),
        "generalisation_gap_stderr": (train.error.square() + test.curve.error[0].square()).sqrt().item(),
    }


def _announce(subject: Subject, batch: Batch) -> None:
    """Logs how long the bound will take, if it is long, from a piece of it; leaves the random state as it was."""
    asked = subject.sizes.bound_samples
    # Five parts, because images are encoded once for all of them.
    samples = min(asked, 5 * max(1, at_once(batch.images.shape[1:]) // len(batch.images)))
    with isolate_rng():
        seconds = estimate(
            lambda: bounds.importance_weighted_bound(subject.model, batch, samples).sum().item(),
            subject.batches * asked / samples,
        )
    if seconds > PATIENCE:
        log.info(
            "measuring  the bound with %s samples for each test image will take about %s",
            f"{asked:,}",
            duration(seconds),
        )
