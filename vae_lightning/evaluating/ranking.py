"""Ranks runs by disentanglement without known factors."""

from collections.abc import Sequence
from pathlib import Path

import torch

from ..engine.devices import named_device
from ..errors import UsageError
from ..metrics.codes import encode_all
from ..metrics.ranking import unsupervised_disentanglement_ranking
from ..runs import run_names
from ..runs.loading import LoadedRun, load_run

__all__ = ["disentanglement_ranking"]


def disentanglement_ranking(
    runs: Sequence[str | Path | LoadedRun], images: int = 2000, trust: str | Sequence[str] = (), device: str = "cpu"
) -> dict[str, float]:
    """Returns the unsupervised disentanglement ranking of runs that differ in the seed alone: higher is better.

    See `vae_lightning.metrics.ranking`; no known factors are needed. Rank each setting of a sweep by itself, and
    compare the settings by the median over their seeds.

    Args:
        runs: folders of finished runs, or results of `train` or `load_run`; at least two, of equal image shape.
        images: maximum number of test images of the first run, whose codes are compared.
        trust: see `load_run`.
        device: name of the device, such as `cuda`.

    Returns:
        The score of each run by the name of its folder.

    Raises:
        UsageError: for fewer than two runs, or images of different shapes.
        LoadError: if a run cannot be loaded.

    >>> disentanglement_ranking(sorted(Path("multirun/…").glob("objective-tc_*")))  # doctest: +SKIP
    """
    loaded = [run if isinstance(run, LoadedRun) else load_run(run, trust=trust) for run in runs]
    shapes = {run.image_shape for run in loaded}
    if len(loaded) < 2 or len(shapes) > 1:
        raise UsageError(f"runs: must be two or more of equal image shape, got {len(loaded)} of {len(shapes)} shapes")
    numbers = loaded[0].data.chosen("test", images)
    codes, rates = [], []
    for run in loaded:
        model = run.model.to(named_device(device))
        parts = (loaded[0].data.numbered("test", part) for part in numbers.split(1000))
        found = encode_all(model, (part.on(model.device) for part in parts))
        codes.append(found.points)
        # Where only the total rate is known, all dimensions count.
        rates.append(found.rates if len(found.rates) == found.points.shape[1] else torch.ones(found.points.shape[1]))
    names = run_names([run.run for run in loaded])
    scores = unsupervised_disentanglement_ranking(codes, rates)
    return {names[run.run]: score for run, score in zip(loaded, scores, strict=True)}
