"""`vae-runs` and `python -m vae_lightning.runs`: lists the runs on disk, and deletes those that are not wanted."""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError
from .claiming import claimed, state_of
from .finding import runs_in, size_of
from .names import plain_cell, short_names, short_path, shown
from .options import differing_options
from .packing import pack, unpack
from .ranking import best_first, unranked
from .run import Run

__all__ = ["main"]

EXAMPLES = """\
examples:
  vae-runs                                      all runs in multirun and outputs
  vae-runs --where "data == 'kmnist10k' and latent_dim <= 16" --best-first
  vae-runs --where "test/elbo > -250" --folders | xargs vae-report -o report
  vae-runs multirun/2026-* --csv > runs.csv
  vae-runs SWEEP --pack runs.tar.gz              to give somebody, who runs: vae-runs --unpack runs.tar.gz FOLDER
  vae-runs --delete-failed                      asks first
  vae-runs SWEEP --keep-best 3                  deletes the other finished runs; asks first

A condition compares options, metrics, the name or the state (finished, running, interrupted, failed) with values.
"""
KEYS = 6  # that differ, in the listing: these first, then other groups, and last what follows from the data
FIRST = ("data", "model", "model.latent_dim", "model/objective", "seed", "trainer.max_epochs")
COLUMNS = ("run", "state", "elbo", "size", "version", "started")  # beside them
LAST = ("data.name", "data.image_shape", "data.eval_batch_size")
REASONS = 10  # why runs failed, below it
BOUND = "test/elbo"


def main() -> None:
    """Exits with 0, with 1 if something could not be deleted, with 2 for a wrong command."""
    parser = _parser()
    arguments = parser.parse_args()
    try:
        if arguments.unpack:
            if len(arguments.folders) > 1:
                raise UsageError(f"--unpack {arguments.unpack}: takes one FOLDER, not {len(arguments.folders)}")
            if arguments.where:
                raise UsageError(f"--where {arguments.where}: an archive is unpacked as a whole")
            for run in unpack(arguments.unpack, *arguments.folders[:1]):
                print(f"unpacked   {short_path(run.folder)}")
            return
        runs = runs_in(arguments.folders, arguments.where)
        if arguments.best_first:
            runs = best_first(runs)
        if arguments.delete_failed:
            sys.exit(_delete([run for run in runs if state_of(run) == "failed"], arguments.yes))
        if arguments.keep_best is not None:
            finished = [run for run in runs if state_of(run) == "finished"]
            if reason := unranked(finished):
                raise UsageError(f"--keep-best {arguments.keep_best}: the runs cannot be ranked, since {reason}")
            ranked = best_first(finished)
            sys.exit(_delete(ranked[arguments.keep_best :], arguments.yes))
        if arguments.pack:
            print(f"packed     {len(runs)} in {short_path(pack(runs, arguments.pack))}")
        elif arguments.folders_only:
            print("\n".join(short_path(run.folder) for run in runs))
        elif arguments.csv:
            from .finding import table_of

            table = table_of(runs).map(lambda value: plain_cell(value) if isinstance(value, str) else value)
            table.rename(columns=plain_cell).to_csv(sys.stdout, index=False)
        else:
            _list(runs)
            if arguments.best_first and (reason := unranked([run for run in runs if run.finished])):
                print(f"not ranked by the bound alone, since {reason}")
        sys.stdout.flush()
    except UsageError as error:
        parser.error(str(error))
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            parser.exit(1, f"vae-runs: {error.filename or 'failed'}: {error.strerror or error}\n")
        # As in "vae-runs | head".
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vae-runs",
        description="Lists the runs on disk, in folders of folders, and deletes those that are not wanted.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folders", nargs="*", metavar="FOLDER", help="where to look, at any depth (default: multirun and outputs)"
    )
    parser.add_argument("--where", default="", metavar="CONDITION", help="only the runs that meet it")
    parser.add_argument("--best-first", action="store_true", help="by the bound of validation or test images")
    one = parser.add_mutually_exclusive_group()
    one.add_argument("--csv", action="store_true", help="with every metric, for a spreadsheet")
    one.add_argument("--folders", action="store_true", dest="folders_only", help="the folders alone, one a line")
    one.add_argument("--pack", type=Path, metavar="FILE", help="write the runs to an archive, a .tar.gz")
    one.add_argument("--unpack", type=Path, metavar="FILE", help="read an archive's runs into FOLDER, or here")
    one.add_argument("--delete-failed", action="store_true", help="delete the runs that failed")
    one.add_argument("--keep-best", type=_count, metavar="N", help="delete all finished runs but the N best")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def _list(runs: Sequence[Run]) -> None:
    if not runs:
        print("no runs")
        return
    import pandas as pd

    keys = sorted(differing_options(runs), key=_rank)
    names = {key: key if name in COLUMNS else name for key, name in short_names(keys[:KEYS]).items()}
    rows = []
    for run in runs:
        bound = run.metrics.get(BOUND) if run.finished else None
        row = {"run": short_path(run.folder), "state": state_of(run)}
        row |= {name: shown(run.option(key)) for key, name in names.items()}
        row |= {"elbo": "" if bound is None else f"{bound:.2f}", "size": _bytes(size_of(run))}
        rows.append({**row, "version": run.version or "", "started": run.started[:16].replace("T", " ")})
    table = pd.DataFrame(rows)
    states = Counter(table["state"])
    for name in ("run", "state"):  # to the left, as text is read
        width = max(map(len, [name, *table[name]]))
        table[name] = table[name].str.ljust(width)
        table = table.rename(columns={name: name.ljust(width)})
    print(table.to_string(index=False), end="\n\n")
    failed = [run for run in runs if state_of(run) == "failed"]
    for run in failed[:REASONS]:
        print(f"failed     {short_path(run.folder)}: {run.failure}")
    listed = ", ".join(f"{count} {state}" for state, count in states.most_common())
    print(f"{len(runs)} run{'s' if len(runs) > 1 else ''} ({listed}), {_bytes(sum(map(size_of, runs)))}")
    if len(keys) > KEYS:
        print(f"{len(keys) - KEYS} more options differ: --csv has all")


def _rank(key: str) -> int:
    return FIRST.index(key) if key in FIRST else len(FIRST) + ("." in key) + (key in LAST)


def _delete(runs: Sequence[Run], agreed: bool) -> int:
    if not runs:
        print("nothing to delete")
        return 0
    listed = {run: _ending(run) for run in runs}
    for run in runs:
        print(f"{state_of(run):9}  {_bytes(size_of(run)):>8}  {short_path(run.folder)}")
    question = f"Delete {'this run' if len(runs) == 1 else f'these {len(runs)} runs'}?"
    if not agreed:
        if not sys.stdin.isatty():
            raise UsageError("add --yes to delete them: there is nobody to ask")
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was deleted")
            return 0
    code = 0
    for run in runs:
        try:
            with claimed(run):  # taken up meanwhile, it is left alone
                if _ending(run) != listed[run]:
                    raise UsageError(f"{short_path(run.folder)}: has changed meanwhile")
                shutil.rmtree(run.folder)
        except (OSError, UsageError) as error:
            print(f"not deleted  {error}", file=sys.stderr)
            code = 1
    return code


def _ending(run: Run) -> list[int]:
    """When the files that say how a run has ended were written."""
    return [file.stat().st_mtime_ns for file in (run.metrics_file, run.error_file) if file.exists()]


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


if __name__ == "__main__":
    main()
