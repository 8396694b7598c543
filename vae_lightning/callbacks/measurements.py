"""Test metrics beyond the bound: a callback that applies `evaluation` to the test set.

Measuring does not affect training, and its memory does not grow with the test set: metrics that need many images at
once use a subset, the same in every run. Metrics that need labels are skipped if there are none.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from ..data.batch import Batch
from ..data.sizes import at_once
from ..evaluation import bounds, codes, geometry, probes, quality
from ..evaluation.reference import reference
from ..posteriors import point
from ..vae import VAE
from .drawing import drawing, model_of, on_device, tested_batches

__all__ = ["Measurements"]

log = logging.getLogger(__name__)

Metrics = dict[str, float]

PATHS = 200  # number of images between which paths are decoded


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

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = model_of(pl_module)
        if not trainer.is_global_zero:
            return
        started = time.perf_counter()
        with drawing(model):
            torch.manual_seed(0)
            metrics = self._measure(trainer, model)
        values = {f"test/{name}": torch.tensor(value).double() for name, value in metrics.items()}
        model.log_dict(values, rank_zero_only=True)
        log.info("measured   %d metrics in %.1f s", len(metrics), time.perf_counter() - started)

    def _measure(self, trainer: Trainer, model: VAE) -> Metrics:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        metrics = self._of_all_images(trainer, model)
        if self.probe_images or self.quality_images:
            if _is_labelled(data):
                metrics |= self._by_class(model, data)
            else:
                log.info("measured   no labels in %s: class accuracies and Fréchet distances are left out", data.name)
        if self.quality_images:
            metrics |= self._paths(model, data)
        if self.plane_points:
            metrics |= self._faithfulness(model, data)
        return metrics

    def _of_all_images(self, trainer: Trainer, model: VAE) -> Metrics:
        posteriors, priors = codes.Aggregate(), codes.Aggregate()
        error, bound, squares = 0.0, 0.0, 0.0
        for batch in _progress(trainer):
            images, labels = batch
            posterior, prior = model.encode(images, labels), model.prior_distribution(labels)
            posteriors.update(posterior)
            if prior.batch_shape:  # it depends on the labels
                priors.update(prior)
            reconstruction = model.decode(point(posterior), labels).mean
            error += bounds.squared_error(images, reconstruction).double().sum().item()
            if self.bound_samples:
                values = bounds.importance_weighted_bound(model, batch, self.bound_samples).double()
                bound += values.sum().item()
                squares += values.square().sum().item()
        if not priors.count:
            priors.update(prior)
        count = posteriors.count
        metrics = {
            "mse": error / count,
            "active_units": float(codes.active_units(posteriors.covariance_of_means)),
            "posterior_mean_gap": (posteriors.mean - priors.mean).square().mean().sqrt().item(),
            "posterior_covariance_gap": (posteriors.covariance - priors.covariance).norm().item()
            / model.latent_dim**0.5,
        }
        if self.bound_samples:
            variance = max(0.0, squares / count - (bound / count) ** 2)
            metrics |= {"iw_bound": bound / count, "iw_bound_stderr": (variance / count) ** 0.5}
        return metrics

    def _by_class(self, model: VAE, data: Any) -> Metrics:
        metrics = self._accuracies(model, data) if self.probe_images else {}
        known = reference(data, model.device, self.probe_images or 5000, self.cache)
        metrics |= known.metrics
        if self.quality_images:
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


def _progress(trainer: Trainer) -> Iterator[Batch]:
    """Yields the test batches, with a progress bar on a terminal."""
    total = int(trainer.num_test_batches[0])
    return iter(tqdm(tested_batches(trainer), "measuring", total, unit="batch", leave=False, disable=None))


def _is_labelled(data: Any) -> bool:
    return all(Batch(*data.examples(name, 1)).labels is not None for name in ("train", "test"))


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
