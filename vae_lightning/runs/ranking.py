"""Which of several runs is best, and whether they can be ranked at all."""

from collections.abc import Mapping, Sequence
from typing import Any

from .run import Run

__all__ = ["best_first", "different", "score", "scored_by", "tested_on", "unranked"]


def score(metrics: Mapping[str, Any]) -> float:
    """Returns what a search maximises: the elbo of validation images, or of test images if there are none.

    For a model without a bound, it is the negative loss.
    """
    stage = scored_by(metrics)
    return float(metrics.get(f"{stage}/elbo", -metrics[f"{stage}/loss"]))


def scored_by(metrics: Mapping[str, Any]) -> str:
    """Returns `val` or `test`, the images by which a search ranks a run."""
    return "val" if "val/loss" in metrics else "test"


def best_first(runs: Sequence[Run]) -> list[Run]:
    """Returns runs ordered by their `score`, best first, unfinished ones last."""

    def success(run: Run) -> float:
        return score(run.metrics) if run.finished else float("-inf")

    return sorted(runs, key=success, reverse=True)


def tested_on(run: Run) -> tuple[str, str]:
    """Returns what a finished run's elbo is of: the test images, by their digest if it is known, and the likelihood."""
    data = f"{run.digests.get('test') or run.option('data.name')}, {run.option('data.binarize')}"
    return data, str(run.option("model.likelihood._target_"))


def different(tested: Sequence[tuple[str, str]]) -> str:
    """Returns what differs between what runs are `tested_on`, for a message; nothing if their elbos are comparable."""
    parts = zip(("data", "likelihoods"), zip(*tested, strict=True), strict=False)
    return " and ".join(name for name, found in parts if len(set(found)) > 1)


def unranked(runs: Sequence[Run]) -> str:
    """Returns why the `score` does not rank finished runs, for a message; nothing if it does."""
    if apart := different([tested_on(run) for run in runs]):
        return f"they are of different {apart}"
    if len({scored_by(run.metrics) for run in runs}) > 1:
        return "some have validation images and some have none"
    if len({f"{scored_by(run.metrics)}/elbo" in run.metrics for run in runs}) > 1:
        return "some have no bound of log p(x)"
    return ""
