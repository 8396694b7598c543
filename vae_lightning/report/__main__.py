"""`vae-report SWEEP` and `python -m vae_lightning.report SWEEP`: makes a sweep's comparison again."""

import argparse
import os
import sys
from pathlib import Path

from . import compare

__all__ = ["main"]


def main() -> None:
    """Exits with 0, 1 if some runs have not finished, 2 if there are none."""
    parser = argparse.ArgumentParser(
        prog="vae-report", description="Makes the comparison of a sweep's runs again, from the files in its folder."
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP", help="the sweep's folder, as in multirun/2026-01-01_…")
    sweep = parser.parse_args().sweep
    try:
        unfinished = compare(sweep)
    except FileNotFoundError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except BrokenPipeError:  # as in "vae-report SWEEP | head"; the files are written
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(1 if unfinished else 0)


if __name__ == "__main__":
    main()
