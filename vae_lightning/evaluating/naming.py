"""The names of evaluations: made from what was asked for, and never overwritten unasked."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..runs import Run, run_name, short_path

__all__ = ["SIZES", "evaluation_name", "refuse_existing"]

# Options of the measurements, of `vae_lightning.callbacks.Measurements`.
SIZES = (
    "bound_samples", "bound_images", "training_images", "rate_images", "probe_images", "quality_images",
    "factor_images", "plane_points", "tsne", "copy_images", "half_samples", "annealed_images", "annealed_chains",
    "annealed_steps",
)  # fmt: skip


def evaluation_name(
    name: str | None,
    data: str | None,
    overrides: Sequence[str],
    checkpoint: str | None,
    sizes: Mapping[str, Any],
    against: Sequence[str] = (),
) -> str:
    """Returns the name of an evaluation.

    Args:
        name: as asked for, or None.
        data: the choice of other data, or None.
        overrides: options of these data, `key=value`.
        checkpoint: as asked for, or None.
        sizes: options of the measurements that were asked for.
        against: choices of other data whose images are told from these.

    Raises:
        UsageError: if the name that was asked for would not do as that of a file.

    >>> evaluation_name(None, "mnist", [], "last", {"bound_samples": 5000})
    'data-mnist_checkpoint-last_bound_samples-5000'
    >>> evaluation_name(None, None, [], None, {})
    'test'
    """
    if name is None:
        asked = {"data": data, "checkpoint": checkpoint, "against": "-".join(against) or None}
        asked |= {key: str(value).lower() for key, value in sizes.items()}
        parts = [f"{key}={value}" for key, value in asked.items() if value is not None]
        return run_name("", [*parts[:1], *overrides, *parts[1:]] if data else parts) if parts else "test"
    if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}", name):
        raise UsageError(f"--name {name}: must be up to 200 letters, digits and ._-, and not begin with a dot")
    return name


def refuse_existing(run: Run, name: str, force: bool) -> None:
    """Raises `UsageError` if a run has an evaluation of this name, unless it is to be replaced."""
    file = run.evaluation_file(name)
    if file.exists() and not force:
        raise UsageError(f"{short_path(file)} exists already; replace it with --force, or choose another --name")
