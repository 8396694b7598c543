"""Variational autoencoders compared: PyTorch Lightning experiments composed with Hydra.

A trained run is put to use by `load_run`:

>>> from vae_lightning import load_run
>>> run = load_run("multirun/…/latent_dim-2")  # doctest: +SKIP
>>> images = run.model.sample(64)  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runs.loading import LoadedRun, LoadError, load_run

__all__ = ["LoadError", "LoadedRun", "load_run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Only now, because the commands answer before PyTorch is imported.
    if name in __all__:
        from .runs import loading

        return getattr(loading, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
