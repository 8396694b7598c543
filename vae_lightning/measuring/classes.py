"""How well codes tell the class, and whether classes are clusters of codes, beside pixels and a classifier."""

from torch import Tensor

from ..metrics import probes
from .subject import Metrics, Subject

__all__ = ["measure"]

ENOUGH = 100  # images, for a standard error of at most 0.05


def measure(subject: Subject) -> Metrics:
    """Returns the accuracies of classifiers of codes, how far classes are clusters, and both for the reference."""
    if not (subject.sizes.probe_images or subject.sizes.quality_images) or not subject.has_classes:
        return {}
    metrics = _of_codes(subject) if subject.sizes.probe_images else {}
    return metrics | subject.reference.metrics


def _of_codes(subject: Subject) -> Metrics:
    with subject.progress.step("class accuracies"):
        train, test = (_coded(subject, name) for name in ("train", "test"))
        nearest, linear = probes.class_accuracies(train, test)
        metrics = {"knn_accuracy": nearest, "probe_accuracy": linear, **probes.clustering(*test)}
        chart = subject.model.latent_space.chart(train[0])
        if not chart.exact:
            in_plane = [(chart.project(points), labels) for points, labels in (train, test)]
            metrics["knn_accuracy_plane"] = probes.knn_accuracy(in_plane[0], in_plane[1])
    subject.note_if_few("class accuracies", len(test[0]), ENOUGH)
    return metrics


def _coded(subject: Subject, name: str) -> tuple[Tensor, Tensor]:
    batch = subject.examples(name, subject.sizes.probe_images)
    return subject.codes(batch), batch.labels  # type: ignore[return-value]
