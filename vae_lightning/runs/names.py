"""Readable names of runs, options and values."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from .run import Run
from .sweep import swept_keys

__all__ = ["plain_cell", "run_labels", "run_name", "run_names", "short_names", "short_path", "shown"]

Labels = dict[Run, str]


def run_name(sweep: str, overrides: Sequence[str]) -> str:
    """Returns the name of a job's folder, from the swept options, as in `latent_dim-128_seed-1`.

    Names consist of letters, digits and `._-`, which need no quoting in a shell or in Hydra's grammar. If a value is
    long or has other characters, a digest keeps the names unique.

    Args:
        sweep: the sweep's folder, which contains `multirun.yaml`; "" for none, so that all overrides count.
        overrides: the job's own overrides, `key=value`.

    >>> run_name("nowhere", ["model.latent_dim=2", "model/objective=beta", "model.encoder.hidden=[64,32]"])
    'latent_dim-2_objective-beta_hidden-64-32-0d1c05'
    """
    keys = swept_keys(Path(sweep)) if sweep else []
    parts = dict(override.lstrip("+~").split("=", 1) for override in overrides if "=" in override)
    chosen = {key: value for key, value in parts.items() if not keys or key in keys}
    short = short_names(chosen)
    name = "_".join(f"{short[key]}-{_plain(value)}" for key, value in chosen.items())
    return _plain(name, longest=150) if name else "run"


def short_names(keys: Iterable[str]) -> dict[str, str]:
    """Returns the last part of each key, or as many parts as needed to make the names unique.

    >>> short_names(["model.latent_dim", "model.encoder.width", "model.decoder.width"])
    {'model.latent_dim': 'latent_dim', 'model.encoder.width': 'encoder.width', 'model.decoder.width': 'decoder.width'}
    >>> short_names(["callbacks.averaging._target_"])
    {'callbacks.averaging._target_': 'averaging'}
    """
    paths = {key: re.split(r"[./]", key.partition("@")[0].removesuffix("._target_")) for key in keys}
    names = {}
    for key, parts in paths.items():
        for depth in range(1, len(parts) + 1):
            if sum(other[-depth:] == parts[-depth:] for other in paths.values()) == 1:
                break
        names[key] = ".".join(parts[-depth:])
    return names


def run_names(runs: Sequence[Run]) -> Labels:
    """Returns the name of each run's folder, with as many parent folders as needed to make the names unique.

    >>> list(run_names([Run(Path("/a/one")), Run(Path("/b/one")), Run(Path("/b/two"))]).values())
    ['a/one', 'b/one', 'two']
    """
    paths = {run: run.folder.resolve().parts for run in runs}
    names = {}
    for run, parts in paths.items():
        for depth in range(1, len(parts) + 1):
            if sum(other[-depth:] == parts[-depth:] for other in paths.values()) == 1:
                break
        names[run] = "/".join(parts[-depth:])
    return names


def run_labels(runs: Sequence[Run], keys: Sequence[str]) -> Labels:
    """Returns a label that identifies each run: the differing keys with their values, and its name if needed."""
    names, short = run_names(runs), short_names(keys)
    labels = {run: ", ".join(f"{short[key]} = {shown(run.option(key))}" for key in keys) for run in runs}
    counts = Counter(labels.values())
    return {
        run: label if label and counts[label] == 1 else ", ".join(filter(None, [label, names[run]]))
        for run, label in labels.items()
    }


def short_path(folder: Path) -> str:
    """Returns a path as typed from the current folder."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def shown(value: Any) -> str:
    """Returns a value as text for display: long decimals rounded, a dash for None.

    >>> shown(0.0036835616), shown("0.001"), shown("conv"), shown(None)
    ('0.003684', '0.001', 'conv', '–')
    """
    if value is None or value != value:
        return "–"
    text = str(value)
    return f"{float(text):.4g}" if re.fullmatch(r"-?\d*\.\d{5,}(e-?\d+)?", text) else text


def plain_cell(text: str) -> str:
    """Returns text that a spreadsheet does not interpret as a formula.

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
