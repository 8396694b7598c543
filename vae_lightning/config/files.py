"""The files of the shipped configuration."""

import re
from pathlib import Path

__all__ = ["CONFIGURATION", "choices_with"]

PACKAGE = Path(__file__).parents[1]
# The configuration is next to the package in a checkout and inside it in a wheel.
CONFIGURATION = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())


def choices_with(option: str) -> list[str]:
    """Returns the choices, `GROUP=CHOICE`, that set an option of their group; first the one that is named like it.

    >>> choices_with("model.objective.beta")[:2], choices_with("callbacks.measurements")
    (['model/objective=beta', 'model/objective=annealed'], ['callbacks=default', 'callbacks=long'])
    """
    node, _, key = option.rpartition(".")
    group = node.replace(".", "/")
    files = sorted((CONFIGURATION / group).glob("[!_]*.yaml"), key=lambda file: (file.stem != key, file.stem))
    setting = re.compile(rf"^{re.escape(key)}:", re.MULTILINE)
    return [f"{group}={file.stem}" for file in files if node and setting.search(file.read_text("utf-8"))]
