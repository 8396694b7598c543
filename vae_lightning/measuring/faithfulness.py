"""What a plot of codes keeps of their neighbourhoods."""

import logging

from ..metrics import probes
from .subject import Metrics, Subject

__all__ = ["measure"]

log = logging.getLogger(__name__)

ENOUGH = 25  # codes: neighbourhoods of 12 are at most half of them


def measure(subject: Subject) -> Metrics:
    """Returns the trustworthiness and continuity of plots of codes, against the codes and against the images."""
    if not subject.sizes.plane_points:
        return {}
    with subject.progress.step(f"faithfulness of plots{' (t-SNE)' if subject.sizes.tsne else ''}"):
        return _measured(subject)


def _measured(subject: Subject) -> Metrics:
    examples = subject.examples("test", subject.sizes.plane_points)
    points = subject.codes(examples)
    if len(points) < 3:
        return {}
    if (points - points[0]).abs().max() <= 1e-6 * (1 + points[0].abs().max()):  # t-SNE would even crash
        log.info("measured   all test images have the same code: the faithfulness of plots is left out")
        return {}
    subject.note_if_few("faithfulness of plots", len(points), ENOUGH)
    chart = subject.model.latent_space.chart(points)
    pictures = {"": chart.coordinates}
    if subject.sizes.tsne and not chart.exact:
        pictures["_tsne"] = probes.tsne(points)
    metrics: Metrics = {}
    for name, picture in pictures.items():
        for truth, kind in ((points, ""), (probes.pixels(examples.images), "_images")):
            found = probes.faithfulness(truth, picture)
            metrics[f"trustworthiness{kind}{name}"] = found.trustworthiness
            metrics[f"continuity{kind}{name}"] = found.continuity
    return metrics
