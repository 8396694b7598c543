"""`vae-report SWEEP` and `python -m vae_lightning.report SWEEP`: compares runs again, or any runs with each other."""

import argparse
import os
import sys
from pathlib import Path

from . import compare, print_comparison

__all__ = ["main"]


def main() -> None:
    """Exits with 0, with 1 if some runs have not finished, with 2 if there are none."""
    parser = argparse.ArgumentParser(
        prog="vae-report",
        description="Compares the runs of a sweep, or any runs, from the files in their folders.",
        epilog="Example: vae-report multirun/2026-01-01_… · vae-report outputs/first outputs/second -o report",
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="a sweep, or several runs or sweeps to compare"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="where the report goes (default: report/ in the sweep)"
    )
    arguments = parser.parse_args()
    if len(arguments.folders) > 1 and arguments.output is None:
        parser.error("several folders: say where the report goes with -o FOLDER")
    try:
        comparison = compare(arguments.folders, arguments.output)
        print_comparison(comparison)
    except FileNotFoundError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            parser.exit(1, f"cannot write the report: {error.filename}: {error.strerror}\n")
        # As in "vae-report SWEEP | head"; the files are written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(1 if comparison.unfinished else 0)


if __name__ == "__main__":
    main()
