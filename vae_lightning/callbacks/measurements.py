"""Test metrics beyond the bound: a callback that takes the measurements of `vae_lightning.measuring`.

Measuring does not affect training, and its memory does not grow with the test set: metrics that need many images at
once use a subset, the same in every run. What the data cannot tell is left out, and a line says so: nothing about
classes without labels of two classes, no distances in the features of a classifier that is at chance.
"""

import logging
import time
from dataclasses import asdict

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ..measuring import MEASUREMENTS, Metrics, Sizes, Subject
from ..progress import Progress, duration
from .drawing import drawing, model_of, tested_batches

__all__ = ["Measurements"]

log = logging.getLogger(__name__)


class Measurements(Callback):
    """Adds test metrics; the README has a table of them.

    The data module must have `name`, `class_names` and `examples(name, count)`.

    Args:
        bound_samples: samples per image for the importance-weighted bound; 0 skips it.
        bound_images: maximum number of test images that have so many; what their bounds are above their elbo is added
            to the elbo of all test images. 0 skips the bound.
        training_images: maximum number of training images whose elbo is held against that of test images, beside the
            importance-weighted bound; 0 skips it.
        rate_images: maximum number of test images for the parts of the rate; 0 skips these.
        probe_images: maximum number of training and of test images for probing codes for classes; 0 skips it.
        quality_images: maximum number of images for Fréchet and kernel distances, precision, recall, density and
            coverage; 0 skips these and what lies between codes.
        factor_images: maximum number of training and of test images for scores of disentanglement, where the data have
            known factors of variation; 0 skips these.
        plane_points: maximum number of codes for measuring the faithfulness of their two-dimensional plot; 0 skips it.
        tsne: whether a t-SNE plot is measured as well, if codes cannot be plotted by their own coordinates.
        copy_images: maximum number of training images among which those nearest to samples are sought; 0 skips it.
        half_samples: random halves of the images, for the standard errors of Fréchet distances, precision, recall,
            density and coverage, such as 50; 0 skips these.
        annealed_images: maximum number of test images for annealed importance sampling, such as 100, which takes
            minutes; 0 skips it.
        annealed_chains: chains for each of them.
        annealed_steps: steps of each chain from the prior to the posterior.
        cache: folder of the classifiers used for distances, one per data set; null is `$VAE_CACHE_DIR`, else
            `vae_lightning` in the user's cache folder.

    Attributes:
        arrays: of the last test, for figures: the importance-weighted bound over its number of samples,
            `bound_samples`, `bound`, its standard error `bound_stderr` and that of its difference from the last,
            `bound_gap_stderr`; and samples with the nearest training images, `copied_samples` and `copied_images`
            `(M, C, H, W)`, and their `copied_distances`.

    Raises:
        ValueError: for a negative number.
    """

    def __init__(
        self,
        bound_samples: int = 50,
        bound_images: int = 200,
        training_images: int = 2000,
        rate_images: int = 2000,
        probe_images: int = 5000,
        quality_images: int = 2000,
        factor_images: int = 2000,
        plane_points: int = 1000,
        tsne: bool = True,
        copy_images: int = 60_000,
        half_samples: int = 0,
        annealed_images: int = 0,
        annealed_chains: int = 16,
        annealed_steps: int = 500,
        cache: str | None = None,
    ) -> None:
        self._sizes = Sizes(
            bound_samples=bound_samples,
            bound_images=bound_images,
            training_images=training_images,
            rate_images=rate_images,
            probe_images=probe_images,
            quality_images=quality_images,
            factor_images=factor_images,
            plane_points=plane_points,
            tsne=tsne,
            copy_images=copy_images,
            half_samples=half_samples,
            annealed_images=annealed_images,
            annealed_chains=annealed_chains,
            annealed_steps=annealed_steps,
        )
        self.cache = cache
        self.arrays: dict[str, Tensor] = {}

    @property
    def sizes(self) -> dict[str, int | bool]:
        """How much is measured, by option."""
        return asdict(self._sizes)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        model = model_of(pl_module)
        if not trainer.is_global_zero:
            return
        started = time.perf_counter()
        subject = Subject(
            model,
            trainer.datamodule,  # type: ignore[attr-defined]
            lambda: tested_batches(trainer),
            int(trainer.num_test_batches[0]),
            self._sizes,
            Progress(trainer, "measured"),
            self.cache,
        )
        metrics: Metrics = {}
        with drawing(model):
            for measurement in MEASUREMENTS:
                torch.manual_seed(0)  # so that none depends on which others are taken
                metrics |= measurement.measure(subject)
        self.arrays = subject.arrays
        if subject.few:
            log.info("few images %s", ", ".join(subject.few))
        values = {f"test/{name}": torch.tensor(value).double() for name, value in metrics.items()}
        model.log_dict(values, rank_zero_only=True)
        log.info("measured   %d metrics in %s", len(metrics), duration(time.perf_counter() - started))
