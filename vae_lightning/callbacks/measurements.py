"""What is measured of the tested model beside the bound: a callback that hands the test set to `evaluation`.

Measuring leaves no trace on the training, and its memory does not grow with the test set: what needs many images at
once takes a sample of them, the same in every run.
"""

import hashlib
import logging
import os
import time
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor

from ..evaluation import bounds, codes, probes, quality
from ..vae import VAE
from . import drawing, tested_batches

__all__ = ["Measurements", "Reference", "reference"]

log = logging.getLogger(__name__)

Metrics = dict[str, float]
Examples = tuple[Tensor, Tensor]


class Measurements(Callback):
    """Adds to the test metrics; the README's table says what each of them is.

    Args:
        bound_samples: samples an image for the importance-weighted bound; 0 leaves it out.
        probe_images: training and test images, at most, whose codes are to tell their classes; 0 leaves it out.
        quality_images: images, at most, between which Fréchet and kernel distances are taken; 0 leaves them out.
        plane_points: codes, at most, of which a picture's faithfulness is measured; 0 leaves it out.
        tsne: whether it is measured of a t-SNE picture as well, where the latent dimension is greater than 2.
        cache: folder of the classifiers that distances are taken with, one for each data set; null is
            `$VAE_CACHE_DIR`, else `vae_lightning` in the user's cache folder.
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
        if not isinstance(pl_module, VAE):
            raise TypeError(f"this callback measures a VAE, not a {type(pl_module).__name__}")
        if not trainer.is_global_zero:
            return
        started = time.perf_counter()
        with drawing(pl_module):
            torch.manual_seed(0)
            metrics = self._measure(trainer, pl_module)
        values = {f"test/{name}": torch.tensor(value).double() for name, value in metrics.items()}
        pl_module.log_dict(values, rank_zero_only=True)
        log.info("measured   %d figures in %.1f s", len(metrics), time.perf_counter() - started)

    def _measure(self, trainer: Trainer, model: VAE) -> Metrics:
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        metrics = self._of_all_images(trainer, model)
        if self.probe_images:
            train, test = (_encoded(model, data.examples(name, self.probe_images)) for name in ("train", "test"))
            metrics["knn_accuracy"], metrics["probe_accuracy"] = probes.class_accuracies(train, test)
            if model.latent_dim > 2:
                plane = codes.principal_plane(train[0])
                in_plane = [(plane.project(points), labels) for points, labels in (train, test)]
                metrics["knn_accuracy_plane"] = probes.knn_accuracy(in_plane[0], in_plane[1])
        if self.probe_images or self.quality_images:
            known = reference(data, model.device, self.probe_images or 5000, self.cache)
            metrics |= known.metrics
        if self.quality_images:
            metrics |= self._quality(model, data, known.classifier)
        if self.plane_points:
            metrics |= self._faithfulness(model, data)
        return metrics

    def _of_all_images(self, trainer: Trainer, model: VAE) -> Metrics:
        aggregate = codes.AggregatePosterior()
        count, error, bound, squares = 0, 0.0, 0.0, 0.0
        for x, _ in tested_batches(trainer):
            posterior = model.encode(x)
            aggregate.update(posterior)
            count += len(x)
            error += bounds.squared_error(x, model.decode(posterior.mean).mean).double().sum().item()
            if self.bound_samples:
                values = bounds.importance_weighted_bound(model, x, self.bound_samples).double()
                bound += values.sum().item()
                squares += values.square().sum().item()
        mean, covariance = codes.prior_moments(model.prior.distribution())
        metrics = {
            "mse": error / count,
            "active_units": float(codes.active_units(aggregate.covariance_of_means)),
            "posterior_mean_gap": (aggregate.mean - mean).square().mean().sqrt().item(),
            "posterior_covariance_gap": (aggregate.covariance - covariance).norm().item() / model.latent_dim**0.5,
        }
        if self.bound_samples:
            variance = max(0.0, squares / count - (bound / count) ** 2)
            metrics |= {"iw_bound": bound / count, "iw_bound_stderr": (variance / count) ** 0.5}
        return metrics

    def _quality(self, model: VAE, data: Any, classifier: quality.Classifier) -> Metrics:
        real, train = (data.examples(name, self.quality_images)[0].to(model.device) for name in ("test", "train"))
        if min(len(real), len(train)) < 2:
            return {}
        made = {
            "samples": torch.cat([model.sample(len(part)) for part in real.split(1000)]),
            "reconstructions": torch.cat([model.reconstruct(part) for part in real.split(1000)]),
            "floor": train[: len(real)],
        }
        features = classifier.features(real)
        metrics: Metrics = {}
        for name, images in made.items():
            # What a likelihood calls its mean may leave the range of pixels.
            found = quality.distances(features, classifier.features(images.clamp(0, 1)))
            metrics |= {f"frechet_{name}": found.frechet, f"kernel_{name}": found.kernel}
        ends = model.encode(real[:200]).mean
        paths = torch.lerp(ends[:-1, None], ends[1:, None], torch.linspace(0, 1, 16, device=ends.device)[:, None])
        metrics["path_unevenness"] = codes.path_unevenness(model.decode(paths).mean).mean().item()
        return metrics

    def _faithfulness(self, model: VAE, data: Any) -> Metrics:
        images, _ = examples = data.examples("test", self.plane_points)
        points, _ = _encoded(model, examples)
        if len(points) < 3:
            return {}
        pictures = {"": points}
        if model.latent_dim > 2:
            pictures = {"": codes.principal_plane(points).coordinates}
            if self.tsne:
                pictures["_tsne"] = probes.tsne(points)
        metrics: Metrics = {}
        for name, picture in pictures.items():
            of_codes, of_images = probes.faithfulness(points, picture), probes.faithfulness(images, picture)
            metrics |= {f"trustworthiness{name}": of_codes.trustworthiness, f"continuity{name}": of_codes.continuity}
            metrics |= {
                f"trustworthiness_images{name}": of_images.trustworthiness,
                f"continuity_images{name}": of_images.continuity,
            }
        return metrics


def _encoded(model: VAE, examples: Examples) -> Examples:
    images, labels = examples
    means = [model.encode(part.to(model.device)).mean.cpu() for part in images.split(1000)]
    return torch.cat(means), labels


class Reference:
    """What is known of a data set's own images, by which models are judged.

    Args:
        classifier: trained on the training images.
        metrics: `classifier_accuracy`, `chance_accuracy` (of the most frequent class), `knn_accuracy_pixels` and
            `probe_accuracy_pixels`, on test images.
    """

    version = 1  # of how it is made: part of the name of its file

    def __init__(self, classifier: quality.Classifier, metrics: Metrics) -> None:
        self.classifier = classifier
        self.metrics = metrics


@torch.inference_mode(False)  # Lightning tests in that mode, in which nothing can be trained
def reference(data: Any, device: torch.device, probe_images: int, cache: str | None = None) -> Reference:
    """The reference of a data module's images: made once, then read from the cache folder, by a digest of the images.

    Several processes may ask at the same time. A damaged file is made again; where the folder cannot be written, the
    reference is made every time.
    """
    train, test = data.examples("train", 20_000), data.examples("test", 20_000)
    classes = len(data.class_names)
    digest = hashlib.sha256(f"{Reference.version} {probe_images} {classes}".encode())
    for tensor in (*train, *test):
        digest.update(str(tuple(tensor.shape)).encode())
        digest.update(tensor.numpy())
    file = _cache_folder(cache) / f"{digest.hexdigest()[:24]}.pt"
    classifier = quality.Classifier(data.image_shape, classes)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):
            metrics = _read(file, classifier)
            if metrics is None:
                classifier, metrics = _judge(data.name, train, test, classes, probe_images, device)
                partial = file.with_suffix(".partial")
                torch.save({"classifier": classifier.cpu().state_dict(), "metrics": metrics}, partial)
                partial.replace(file)
    except OSError as error:
        log.warning("cannot keep the classifier: %s: %s", error.filename or file, error.strerror)
        classifier, metrics = _judge(data.name, train, test, classes, probe_images, device)
    return Reference(classifier.to(device).eval(), metrics)


def _read(file: Path, classifier: quality.Classifier) -> Metrics | None:
    try:
        found = torch.load(file, weights_only=True)
        classifier.load_state_dict(found["classifier"])
        return {str(name): float(value) for name, value in found["metrics"].items()}
    except FileNotFoundError:
        return None
    except Exception:  # whatever a damaged file leads to
        log.warning("%s is damaged and made again", file)
        return None


def _judge(
    name: str, train: Examples, test: Examples, classes: int, probe_images: int, device: torch.device
) -> tuple[quality.Classifier, Metrics]:
    log.info("reference  a classifier of %s, trained once, and what its pixels tell of the classes …", name)
    with isolate_rng():  # what is measured afterwards must not depend on whether this was there already
        torch.manual_seed(0)
        classifier = quality.train_classifier(train[0].to(device), train[1].to(device), classes)
    accuracy = quality.accuracy(classifier, test[0].to(device), test[1].to(device))
    few_train, few_test = ((images[:probe_images], labels[:probe_images]) for images, labels in (train, test))
    knn, linear = probes.class_accuracies(few_train, few_test)
    return classifier, {
        "classifier_accuracy": accuracy,
        "chance_accuracy": test[1].bincount().max().item() / len(test[1]),
        "knn_accuracy_pixels": knn,
        "probe_accuracy_pixels": linear,
    }


def _cache_folder(cache: str | None) -> Path:
    if cache or (cache := os.environ.get("VAE_CACHE_DIR")):
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vae_lightning"
