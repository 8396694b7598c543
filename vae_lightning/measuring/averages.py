"""The bound and other averages over all test images, and the use of the latent space."""

import logging

from pytorch_lightning.utilities.seed import isolate_rng

from ..data.batch import Batch
from ..data.sizes import at_once
from ..evaluation import bounds, codes
from ..posteriors import point
from ..progress import PATIENCE, duration, estimate
from .subject import Metrics, Subject

__all__ = ["measure"]

log = logging.getLogger(__name__)


def measure(subject: Subject) -> Metrics:
    """Returns the metrics of single images, as means over the test images, and those of the aggregate posterior."""
    model = subject.model
    samples = subject.sizes.bound_samples if model.has_bound else 0
    posteriors, priors, usage = codes.Aggregate(), codes.Aggregate(), codes.Usage()
    error, bound, squares = 0.0, 0.0, 0.0
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
            reconstruction = model.decode(point(posterior), labels).mean
            error += bounds.squared_error(images, reconstruction).double().sum().item()
            if samples:
                found = bounds.importance_weighted_bound(model, batch, samples, advance=advance)
                values = found.double()
                bound += values.sum().item()
                squares += values.square().sum().item()
            else:
                advance(1)
        if not priors.count:
            priors.update(prior)
    count = posteriors.count
    metrics = {
        "mse": error / count,
        "active_units": float(codes.active_units(posteriors.covariance_of_means)),
        "posterior_mean_gap": (posteriors.mean - priors.mean).square().mean().sqrt().item(),
        "posterior_covariance_gap": (posteriors.covariance - priors.covariance).norm().item() / model.latent_dim**0.5,
        **usage.metrics,
    }
    if samples:
        variance = max(0.0, squares / count - (bound / count) ** 2)
        metrics |= {"iw_bound": bound / count, "iw_bound_stderr": (variance / count) ** 0.5}
    return metrics


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
