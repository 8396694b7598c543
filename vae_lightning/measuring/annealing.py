"""The bound of log p(x) from annealed importance sampling, which owes nothing to the encoder, and how near it comes."""

import logging
from collections.abc import Sequence

from pytorch_lightning.utilities.seed import isolate_rng

from ..data.batch import Batch
from ..metrics.annealing import annealed_bound, annealed_sandwich, simulated
from ..metrics.bounds import importance_weighted_bound
from ..progress import PATIENCE, duration, estimate
from .averages import Average
from .subject import Metrics, Subject, parts

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 20  # images
PROBED = 3  # steps, to tell how long all of them take


def measure(subject: Subject) -> Metrics:
    """Returns the bound of test images, what it gains on the importance-weighted one, and its gap on simulated images.

    There are as many simulated images as test images; see `vae_lightning.metrics.annealing.annealed_sandwich`.
    """
    model, sizes = subject.model, subject.sizes
    if not (sizes.annealed_images and sizes.annealed_chains and sizes.annealed_steps):
        return {}
    if not (model.latent_space.unbounded and model.latent_space.continuous):
        log.info(
            "measured   the prior is a density on %s: annealed importance sampling is left out",
            model.latent_space.description,
        )
        return {}
    batch = subject.examples("test", sizes.annealed_images).on(model.device)
    subject.note_if_few("annealed importance sampling", len(batch.images), ENOUGH)
    chains, steps = sizes.annealed_chains, sizes.annealed_steps
    pieces = [*parts(batch, chains)]
    _announce(subject, pieces)
    bound, rise, gap = Average(), Average(), Average()
    with subject.progress.step("annealed importance sampling", 2 * len(pieces)) as advance:
        for piece in pieces:
            found = annealed_bound(model, piece, chains, steps, advance)
            bound.update(found)
            if model.has_bound and sizes.bound_samples:
                rise.update(found - importance_weighted_bound(model, piece, sizes.bound_samples))
            drawn, codes = simulated(model, len(piece.images), piece.labels)
            lower, upper = annealed_sandwich(model, drawn, codes, chains, steps, advance)
            gap.update(upper - lower)
    averages = {"annealed_bound": bound, "annealed_rise": rise, "annealed_gap": gap}
    return {
        f"{name}{suffix}": value.item()
        for name, average in averages.items()
        if average.count
        for suffix, value in [("", average.mean), ("_stderr", average.error)]
    }


def _announce(subject: Subject, pieces: Sequence[Batch]) -> None:
    """Logs how long it will take, if it is long, from a few steps; leaves the random state as it was."""
    model, sizes = subject.model, subject.sizes
    images = sum(len(piece.images) for piece in pieces)
    share = len(pieces[0].images) / images * PROBED / sizes.annealed_steps
    with isolate_rng():
        # Twice for simulated images, from both ends, and once more to adapt steps.
        times = 3 / share
        seconds = estimate(lambda: annealed_bound(model, pieces[0], sizes.annealed_chains, PROBED).sum().item(), times)
    if seconds > PATIENCE:
        log.info(
            "measuring  annealed importance sampling of %d test images, %d chains of %s steps each, will take about %s",
            images, sizes.annealed_chains, f"{sizes.annealed_steps:,}", duration(seconds),
        )  # fmt: skip
