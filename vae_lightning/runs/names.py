"""Names of runs and of what was swept, as people read them."""

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .sweep import swept_keys

__all__ = ["plain_cell", "run_name", "short_names", "short_path", "shown"]


def run_name(sweep: str, overrides: Sequence[str]) -> str:
    """Name of a job's folder: what was swept, as in `latent_dim-128_seed-1`.

    Names hold letters, digits and `._-` only, which neither a shell nor Hydra's grammar would need quoted. Where a
    value has other characters, or is long, a digest keeps names apart.

    Args:
        sweep: the sweep's folder, with `multirun.yaml` in it.
        overrides: the job's own overrides, `key=value`.

    >>> run_name("nowhere", ["model.latent_dim=2", "model/objective=beta", "model.encoder.hidden=[64,32]"])
    'latent_dim-2_objective-beta_hidden-64-32-0d1c05'
    """
    keys = swept_keys(Path(sweep))
    parts = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    chosen = {key: value for key, value in parts.items() if not keys or key in keys}
    short = short_names(chosen)
    name = "_".join(f"{short[key]}-{_plain(value)}" for key, value in chosen.items())
    return _plain(name, longest=150) if name else "run"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each key, or as many parts as it takes to tell the keys apart.

    >>> short_names(["model.latent_dim", "model.encoder.width", "model.decoder.width"])
    {'model.latent_dim': 'latent_dim', 'model.encoder.width': 'encoder.width', 'model.decoder.width': 'decoder.width'}
    """
    keys = list(keys)
    names = {}
    for key in keys:
        parts = re.split(r"[./]", key.partition("@")[0])
        for depth in range(1, len(parts) + 1):
            name = ".".join(parts[-depth:])
            if sum(re.sub("/", ".", "/" + other).endswith("." + name) for other in keys) == 1:
                break
        names[key] = name
    return names


def short_path(folder: Path) -> str:
    """A path as one would type it from here."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def shown(value: Any) -> str:
    """A value as people read it: long decimals rounded.

    >>> shown(0.0036835616), shown("0.001"), shown("conv")
    ('0.003684', '0.001', 'conv')
    """
    text = str(value)
    return f"{float(text):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", text) else text


def plain_cell(text: str) -> str:
    """Text that a spreadsheet does not take for a formula.

    >>> plain_cell("=cmd()"), plain_cell("-1.5"), plain_cell("conv")
    ("'=cmd()", '-1.5', 'conv')
    """
    formula = text[:1] in set("=+-@\t\r") and not re.fullmatch(r"[+-]?[\d.]+(e[+-]?\d+)?", text)
    return f"'{text}" if formula else text


def _plain(value: str, longest: int = 40) -> str:
    if (rounded := shown(value)) != value:
        return f"{rounded}-{hashlib.sha256(value.encode()).hexdigest()[:4]}"
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", value)
    if plain == value and len(value) <= longest:
        return value
    return f"{plain.strip('-')[:longest]}-{hashlib.sha256(value.encode()).hexdigest()[:6]}"
