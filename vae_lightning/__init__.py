"""Comparing variational autoencoders: PyTorch Lightning experiments configured with Hydra.

The Python API mirrors the command line: compose a configuration, train, compare runs, load a run, measure it again.

>>> from vae_lightning import compare, compose, evaluate, load_run, train
>>> runs = [train(compose("data=glyphs", f"model.latent_dim={d}")) for d in (2, 16)]  # doctest: +SKIP
>>> compare(runs).table  # doctest: +SKIP
>>> run = load_run("multirun/…/latent_dim-2")  # doctest: +SKIP
>>> images = run.model.sample(64)  # doctest: +SKIP
>>> evaluate(run, bound_samples=5000).metrics["test/iw_bound"]  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .config.compose import compose
    from .evaluating.evaluate import Evaluation, evaluate
    from .evaluating.ranking import disentanglement_ranking
    from .report.compare import Comparison, compare
    from .runs.finding import find_runs
    from .runs.loading import LoadedRun, LoadError, load_run
    from .training import train

__all__ = [
    "Comparison", "Evaluation", "LoadError", "LoadedRun", "compare", "compose", "disentanglement_ranking", "evaluate",
    "find_runs", "load_run", "train",
]  # fmt: skip
__version__ = "0.2.0"

_HOMES = {
    "compose": "config.compose",
    "Comparison": "report.compare",
    "compare": "report.compare",
    "Evaluation": "evaluating.evaluate",
    "evaluate": "evaluating.evaluate",
    "disentanglement_ranking": "evaluating.ranking",
    "find_runs": "runs.finding",
    "LoadError": "runs.loading",
    "LoadedRun": "runs.loading",
    "load_run": "runs.loading",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    # Lazy, so that the commands can respond before PyTorch is imported.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
