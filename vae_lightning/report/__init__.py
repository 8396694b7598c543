"""The comparison of a sweep's runs, made from the files in the sweep's folder alone."""

from pathlib import Path

__all__ = ["compare"]


def compare(sweep: Path) -> list[str]:
    return []
