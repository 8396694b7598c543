"""Test metrics beyond the bound: a callback that applies `evaluation` to the test set.

Measuring does not affect training, and its memory does not grow with the test set: metrics that need many images at
once use a subset, the same in every run. What the data cannot tell is left out, and a line says so: nothing about
classes without labels of two classes, no distances in the features of a classifier that is at chance.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ..data.batch import Batch
from ..data.sizes import at_once
from ..evaluation import bounds, codes, geometry, probes, quality
from ..evaluation.reference import reference
from ..posteriors import point
from ..vae import VAE
from .drawing import drawing, model_of, on_device, tested_batches
from .progress import PATIENCE, Progress, duration, estimate

__all__ = ["Measurements"]

log = logging.getLogger(__name__)

Metrics = dict[str, float]

PATHS = 200  # number of images between which paths are decoded

# Numbers of images below which metrics are rough.
ENOUGH_FOR_ACCURACIES = 100  # standard error of at most 0.05
ENOUGH_FOR_DISTANCES = 128  # twice the classifier's features, whose covariance is estimated
ENOUGH_FOR_PLOTS = 25  # neighbourhoods of 12 are at most half of the codes


class Measurements(Callback):
    """Adds test metrics; the README has a table of them.

    The data module must have `name`, `class_names` and `examples(name, count)`.

    Args:
        bound_samples: samples per image for the importance-weighted bound; 0 skips it.
        probe_images: maximum number of training and of test images for probing codes for classes; 0 skips it.
        quality_images: maximum number of images for Fréchet and kernel distances; 0 skips these and the unevenness of
            paths between images.
        plane_points: maximum number of codes for measuring the faithfulness of their two-dimensional plot; 0 skips it.
        tsne: whether a t-SNE plot is measured as well, if codes cannot be plotted by their own coordinates.
        cache: folder of the classifiers used for distances, one per data set; null is `$VAE_CACHE_DIR`, else
            `vae_lightning` in the user's cache folder.

    Raises:
        ValueError: for a negative number.
    """

    def __init__(
        self,
        bound_samples: int = 50,
        probe_images: int = 5000,
        quality_images: int = 2000,
        plane_points: int = 1000,
        tsne: bool = True,
        cache: str | None = None,
    ) -> None:
        for option, value in [
            ("bound_samples", bound_samples),
            ("probe_images", probe_images),
            ("quality_images", quality_images),
            ("plane_points", plane_points),
        ]:
            if value < 0:
                raise ValueError(f"{option}: must be a whole number of at least 0, got {value}")
        self.bound_samples = bound_samples
        self.probe_images = probe_images
        self.quality_images = quality_images
        self.plane_points = plane_points
        self.tsne = tsne
        self.cache = cache

    @property
    def sizes(self) -> dict[str, int | bool]:
        """How much is measured, by option."""
        return {
            "bound_samples": self.bound_samples,
            "probe_images": self.probe_images,
            "quality_images": self.quality_images,
            "plane_points": self.plane_points,
            "tsne": self.tsne,
        }

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = model_of(pl_module)
        if not trainer.is_global_zero:
            return
        started = time.perf_counter()
        with drawing(model):
            torch.manual_seed(0)
            metrics = self._measure(trainer, model, Progress(trainer, "measured"))
        values = {f"test/{name}": torch.tensor(value).double() for name, value in metrics.items()}
        model.log_dict(values, rank_zero_only=True)
        log.info("measured   %d metrics in %s", len(metrics), duration(time.perf_counter() - started))

    def _measure(self, trainer: Trainer, model: VAE, progress: Progress) -> Metrics:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        metrics = self._of_all_images(trainer, model, progress)
        if self.probe_images or self.quality_images:
            if lack := _lack_of_classes(data, max(self.probe_images, self.quality_images)):
                log.info("measured   %s: class accuracies and Fréchet distances are left out", lack)
            else:
                metrics |= self._by_class(model, data, progress)
        if self.quality_images:
            with progress.step("paths between images"):
                metrics |= self._paths(model, data)
        if self.plane_points:
            with progress.step(f"faithfulness of plots{' (t-SNE)' if self.tsne else ''}"):
                metrics |= self._faithfulness(model, data)
        self._say_what_is_rough(metrics, data)
        return metrics

    def _say_what_is_rough(self, metrics: Metrics, data: Any) -> None:
        """Logs which of the metrics were measured on too few images to mean much."""
        tested = len(data.examples("test", max(self.probe_images, self.quality_images, self.plane_points, 1))[0])
        rough = [
            f"{what} from {min(used, tested)} test images (rough below {enough})"
            for what, name, used, enough in [
                ("class accuracies", "knn_accuracy", self.probe_images, ENOUGH_FOR_ACCURACIES),
                ("Fréchet and kernel distances", "frechet_samples", self.quality_images, ENOUGH_FOR_DISTANCES),
                ("faithfulness of plots", "trustworthiness", self.plane_points, ENOUGH_FOR_PLOTS),
            ]
            if name in metrics and min(used, tested) < enough
        ]
        if rough:
            log.info("few images %s", ", ".join(rough))

    def _of_all_images(self, trainer: Trainer, model: VAE, progress: Progress) -> Metrics:
        batches = int(trainer.num_test_batches[0])
        what = "bound" if self.bound_samples and model.has_bound else "reconstructions"
        with progress.step(f"{what} of all test images", batches) as advance:
            return self._averaged(model, tested_batches(trainer), batches, advance)

    def _averaged(
        self, model: VAE, tested: Iterator[Batch], batches: int, advance: Callable[[float], object]
    ) -> Metrics:
        """The metrics of single images, as means over the test images, and those of the aggregate posterior."""
        posteriors, priors, usage = codes.Aggregate(), codes.Aggregate(), codes.Usage()
        samples = self.bound_samples if model.has_bound else 0
        error, bound, squares = 0.0, 0.0, 0.0
        for number, batch in enumerate(tested):
            images, labels = batch
            if samples and not number:
                self._announce(model, batch, batches)
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
            "posterior_covariance_gap": (posteriors.covariance - priors.covariance).norm().item()
            / model.latent_dim**0.5,
            **usage.metrics,
        }
        if samples:
            variance = max(0.0, squares / count - (bound / count) ** 2)
            metrics |= {"iw_bound": bound / count, "iw_bound_stderr": (variance / count) ** 0.5}
        return metrics

    def _announce(self, model: VAE, batch: Batch, batches: int) -> None:
        """Logs how long the bound will take, if it is long, from a piece of it; leaves the random state as it was."""
        # Five parts, because images are encoded once for all of them.
        samples = min(self.bound_samples, 5 * max(1, at_once(batch.images.shape[1:]) // len(batch.images)))
        with isolate_rng():
            seconds = estimate(
                lambda: bounds.importance_weighted_bound(model, batch, samples).sum().item(),
                batches * self.bound_samples / samples,
            )
        if seconds > PATIENCE:
            log.info(
                "measuring  the bound with %s samples for each test image will take about %s",
                f"{self.bound_samples:,}",
                duration(seconds),
            )

    def _by_class(self, model: VAE, data: Any, progress: Progress) -> Metrics:
        metrics: Metrics = {}
        if self.probe_images:
            with progress.step("class accuracies"):
                metrics |= self._accuracies(model, data)
        with progress.step(f"reference of {data.name}"):
            known = reference(data, model.device, self.probe_images or 5000, self.cache)
        metrics |= known.metrics
        if self.quality_images and known.at_chance:
            log.info(
                "measured   Fréchet and kernel distances are left out: the classifier that compares images of %s is "
                "right about %.3f of them, no better than chance, %.3f",
                data.name,
                known.metrics["classifier_accuracy"],
                known.metrics["chance_accuracy"],
            )
        elif self.quality_images:
            with progress.step("Fréchet and kernel distances"):
                metrics |= self._distances(model, data, known.classifier)
        return metrics

    def _accuracies(self, model: VAE, data: Any) -> Metrics:
        train, test = (_encoded(model, data.examples(name, self.probe_images)) for name in ("train", "test"))
        nearest, linear = probes.class_accuracies(train, test)
        metrics = {"knn_accuracy": nearest, "probe_accuracy": linear}
        chart = model.latent_space.chart(train[0])
        if not chart.exact:
            in_plane = [(chart.project(points), labels) for points, labels in (train, test)]
            metrics["knn_accuracy_plane"] = probes.knn_accuracy(in_plane[0], in_plane[1])
        return metrics

    def _distances(self, model: VAE, data: Any, classifier: quality.Classifier) -> Metrics:
        real, train = (on_device(model, *data.examples(name, self.quality_images)) for name in ("test", "train"))
        if min(len(real.images), len(train.images)) < 2:
            return {}
        parts = list(_parts(real))
        made: dict[str, Iterator[Tensor]] = {  # never all at once
            "samples": (model.sample(len(images), labels) for images, labels in parts),
            "reconstructions": (model.reconstruct(*part) for part in parts),
            "floor": iter([train.images[: len(real.images)]]),
        }
        features = classifier.features(real.images)
        metrics: Metrics = {}
        for name, pictures in made.items():
            # A likelihood's mean can leave the range of pixel values.
            others = torch.cat([classifier.features(images.clamp(0, 1)) for images in pictures])
            found = quality.distances(features, others)
            metrics |= {f"frechet_{name}": found.frechet, f"kernel_{name}": found.kernel}
        return metrics

    def _paths(self, model: VAE, data: Any, steps: int = 16) -> Metrics:
        images, labels = on_device(model, *data.examples("test", self.quality_images))
        images, labels = images[:PATHS], None if labels is None else labels[:PATHS]
        if len(images) < 2:
            return {}
        ends = point(model.encode(images, labels))
        paths = torch.cat([model.latent_space.interpolate(*pair, steps) for pair in pairwise(ends)])
        classes = None if labels is None else labels[:-1].repeat_interleave(steps)
        pictures = codes.decode_all(model, paths, images.shape[1:], classes).unflatten(0, (-1, steps))
        return {"path_unevenness": geometry.path_unevenness(pictures).mean().item()}

    def _faithfulness(self, model: VAE, data: Any) -> Metrics:
        examples = Batch(*data.examples("test", self.plane_points))
        points, _ = _encoded(model, examples)
        if len(points) < 3:
            return {}
        if (points - points[0]).abs().max() <= 1e-6 * (1 + points[0].abs().max()):  # t-SNE would even crash
            log.info("measured   all test images have the same code: the faithfulness of plots is left out")
            return {}
        chart = model.latent_space.chart(points)
        pictures = {"": chart.coordinates}
        if self.tsne and not chart.exact:
            pictures["_tsne"] = probes.tsne(points)
        metrics: Metrics = {}
        for name, picture in pictures.items():
            for truth, kind in ((points, ""), (probes.pixels(examples.images), "_images")):
                found = probes.faithfulness(truth, picture)
                metrics[f"trustworthiness{kind}{name}"] = found.trustworthiness
                metrics[f"continuity{kind}{name}"] = found.continuity
        return metrics


def _lack_of_classes(data: Any, count: int) -> str:
    """The reason why nothing can be measured by class, if there is one, from so many images of each split."""
    if any(Batch(*data.examples(name, 1)).labels is None for name in ("train", "test")):
        return f"no labels in {data.name}"
    for name, images in (("train", "training"), ("test", "test")):
        if len(Batch(*data.examples(name, count)).labels.unique()) < 2:  # type: ignore[union-attr]
            return f"only one class among the {images} images of {data.name}"
    return ""


def _parts(batch: Batch) -> Iterator[Batch]:
    size = at_once(batch.images.shape[1:])
    for start in range(0, len(batch.images), size):
        images, labels = (None if tensor is None else tensor[start : start + size] for tensor in batch)
        yield Batch(images, labels)  # type: ignore[arg-type]


def _encoded(model: VAE, examples: Sequence[Any]) -> tuple[Tensor, Any]:
    """Returns the codes `(N, latent_dim)` and labels of images, on the CPU."""
    batch = Batch(*examples)
    found = [point(model.encode(*on_device(model, *part))).cpu() for part in _parts(batch)]
    return torch.cat(found), batch.labels
