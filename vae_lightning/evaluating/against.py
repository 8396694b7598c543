"""Whether a model tells the test images of its data from those of other data sets."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from ..callbacks.drawing import drawing
from ..conditioning import is_conditional
from ..data.batch import Batch
from ..metrics.bounds import importance_weighted_bound
from ..metrics.outliers import auroc, code_length, complexity, typicality
from ..progress import Progress
from ..vae import VAE

__all__ = ["measure_against"]

log = logging.getLogger(__name__)

IMAGES = 2000  # of each data set, at most: an area has a standard error of at most 0.01


def measure_against(
    model: VAE, own: Any, others: Sequence[tuple[str, Any]], samples: int, progress: Progress
) -> dict[str, float]:
    """Returns `auroc_…_against_NAME` of the test images of each other data set against those of the run's data.

    Args:
        model: in evaluation mode, on the device to use.
        own: the data module whose images are not outliers; its training images say which bound is usual.
        others: names and data modules, with images of the same shape.
        samples: for each image, of the importance-weighted bound; at least 1.
        progress: shows the data sets.
    """
    if lack := _lack(model):
        log.info("left out   --against: %s", lack)
        return {}

    def bounds(data: Any, split: str) -> Tensor:
        batches = [*_batches(data, split)]
        with progress.step(f"bounds of {split} images of {data.name}", len(batches)) as advance:
            found = []
            for batch in batches:
                found.append(importance_weighted_bound(model, batch.on(model.device), samples).cpu().double())
                advance(1)
        return torch.cat(found)

    metrics: dict[str, float] = {}
    with drawing(model):
        torch.manual_seed(0)
        usual = bounds(own, "train").mean().item()
        inside = _scores(own, bounds(own, "test"), usual)
        for name, data in others:
            outside = _scores(data, bounds(data, "test"), usual)
            metrics |= {f"test/auroc_{score}_against_{name}": auroc(inside[score], outside[score]) for score in inside}
    return metrics


def _lack(model: VAE) -> str:
    if not model.has_bound:
        return "the model has no bound of log p(x)"
    if model.conditional or is_conditional(model.encoder):
        return "the model's bound is of log p(x) given a label, and other data have other labels"
    return ""


def _batches(data: Any, split: str) -> Iterator[Batch]:
    for numbers in data.chosen(split, IMAGES).split(data.eval_batch_size):
        yield Batch(data.numbered(split, numbers).images)


def _scores(data: Any, bounds: Tensor, usual: float) -> dict[str, Tensor]:
    """The scores of test images `(N,)`, each high for outliers."""
    lengths = torch.cat([code_length(batch.images) for batch in _batches(data, "test")])
    return {"bound": -bounds, "typicality": typicality(bounds, usual), "complexity": complexity(bounds, lengths)}
