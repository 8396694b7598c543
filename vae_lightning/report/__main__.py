"""`vae-report SWEEP` and `python -m vae_lightning.report SWEEP`: compares runs again, or any runs with each other."""

import argparse
import os
import sys
from pathlib import Path

from ..errors import UsageError
from . import compare, print_comparison

__all__ = ["main"]

EXAMPLES = """\
examples:
  vae-report multirun/2026-01-01_…                         a sweep again, from its files
  vae-report outputs/first outputs/second -o report        any runs
  vae-report multirun -o report --where "data == 'mnist' and latent_dim <= 16"
  vae-report SWEEP --baseline latent_dim=2                 differences from a group, paired by seed
"""


def main() -> None:
    """Exits with 0, with 1 if some runs have not finished, with 2 if there are none."""
    parser = argparse.ArgumentParser(
        prog="vae-report",
        description="Compares the runs of a sweep, or any runs, from the files in their folders.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", type=Path, nargs="+", metavar="FOLDER", help="a sweep, or runs, sweeps and folders of such"
    )
    parser.add_argument(
        "--where", default="", metavar="CONDITION", help="only the runs that meet it; see vae-runs --help"
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="of a run, or what a group of runs has alone: show differences from it"
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="where the report goes (default: report/ in the sweep)"
    )
    arguments = parser.parse_args()
    if len(arguments.folders) > 1 and arguments.output is None:
        parser.error("several folders: say where the report goes with -o FOLDER")
    try:
        comparison = compare(arguments.folders, arguments.output, where=arguments.where, baseline=arguments.baseline)
        print_comparison(comparison)
    except UsageError as error:
        parser.error(str(error))
    except FileNotFoundError as error:
        parser.error(": ".join(filter(None, (error.filename, error.strerror))))
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            parser.exit(1, f"cannot write the report: {error.filename}: {error.strerror}\n")
        # As in "vae-report SWEEP | head"; the files are written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(1 if comparison.unfinished else 0)


if __name__ == "__main__":
    main()
