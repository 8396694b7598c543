"""Runs of other versions of this package: upgrading older configurations and rejecting newer runs."""

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from .run import Run

__all__ = ["RENAMED", "too_new", "upgraded"]

# Current names of modules that configurations may refer to, by former name.
RENAMED = {
    "vae_lightning.architectures.posterior": "vae_lightning.posteriors",
    "vae_lightning.checkpoints": "vae_lightning.callbacks",
    "vae_lightning.measurements": "vae_lightning.callbacks",
}
# Before 0.2 these `engine` options belonged to the model.
ENGINE = ("channels_last", "compile", "steps_per_call", "cuda_graph")
# … and every encoder had this posterior.
DIAGONAL = {"_target_": "vae_lightning.posteriors.GaussianHead", "_partial_": True}


def upgraded(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a run's configuration in this version's format, without modifying the argument.

    >>> upgraded({"model": {"_target_": "vae_lightning.vae.VAE", "compile": True}})
    {'model': {'_target_': 'vae_lightning.vae.VAE'}, 'engine': {'compile': True}}
    """
    found = {key: _renamed(node) for key, node in config.items()}
    model = found.get("model")
    moved = {key: model.pop(key) for key in ENGINE if key in model} if isinstance(model, dict) else {}
    if moved and "engine" not in found:
        found["engine"] = moved
    encoder = model.get("encoder") if isinstance(model, dict) else None
    if isinstance(encoder, dict) and str(encoder.get("_target_")).startswith("vae_lightning."):
        encoder.setdefault("posterior", DIAGONAL)
    return found


def _renamed(node: Any) -> Any:
    if isinstance(node, list):
        return [_renamed(child) for child in node]
    if not isinstance(node, Mapping):
        return node
    found = {key: _renamed(child) for key, child in node.items()}
    if "_target_" in found:
        module, _, name = str(found["_target_"]).rpartition(".")
        if module in RENAMED:
            found["_target_"] = f"{RENAMED[module]}.{name}"
    return found


def too_new(run: Run) -> str | None:
    """Returns the reason why a run cannot be read, if it was trained by a later minor version; None otherwise."""
    try:
        here = version("vae-lightning")
    except PackageNotFoundError:  # used from a source tree
        return None
    there = run.version
    if there and _minor(there) > _minor(here):
        return f"was made by vae-lightning {there}, which is newer than this version, {here}: install {there} or later"
    return None


def _minor(text: str) -> tuple[int, int]:
    match = re.match(r"(\d{1,6})\.(\d{1,6})", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)
