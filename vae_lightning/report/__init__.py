"""The comparison of a sweep's runs, made from the files in the sweep's folder alone."""

import os
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from ..runs import Run, plain_cell, sweep_runs, swept_keys

if TYPE_CHECKING:
    from .claims import Claim

__all__ = ["compare"]


def compare(sweep: Path) -> list[Run]:
    """Makes `report/index.html`, `metrics.csv` and `comparison.png` in a sweep's folder and prints the table.

    Args:
        sweep: a folder with one folder for each run in it.

    Returns:
        The runs without metrics, which are named but not compared.

    Raises:
        FileNotFoundError: if there is no run in the folder.
    """
    # Imported here, because the command line imports this package before it knows whether there is anything to compare.
    from ..config.search import best_first, is_search
    from .claims import chapter_claims
    from .page import write_page
    from .table import metrics_table, print_table

    runs = sweep_runs(sweep)
    if not runs:
        raise FileNotFoundError(2, _no_runs(sweep), str(sweep))
    if is_search(sweep):
        runs = best_first(runs)
    finished = [run for run in runs if run.finished]
    unfinished = [run for run in runs if not run.finished]
    keys = swept_keys(sweep)
    folder = sweep / "report"
    folder.mkdir(exist_ok=True)
    table = metrics_table(runs, keys)
    safe = table.map(lambda value: plain_cell(value) if isinstance(value, str) else value)
    safe.rename(columns=plain_cell).to_csv(folder / "metrics.csv", index=False)
    claims: list[Claim] = []
    drawn = False
    if finished:
        from .picture import comparison_picture

        claims = chapter_claims(finished, keys)
        drawn = comparison_picture(finished, keys, folder / "comparison.png")
    write_page(runs, keys, table, claims, folder / "index.html")
    # Printed when everything is on disk: who reads it may stop reading.
    print(f"comparison {os.path.relpath(sweep)}: {len(finished)} of {len(runs)} runs finished\n")
    if is_search(sweep):
        print("search     the best first, by the elbo of validation images where there are some\n")
    if finished:
        print_table(table, keys)
        print()
        _print_claims(claims, finished[0])
    if drawn:
        print(f"picture    {os.path.relpath(folder / 'comparison.png')}")
    print(f"page       {os.path.relpath(folder / 'index.html')}")
    for run in unfinished:
        print(f"failed     {run.name}: {run.failure}")
    print(f"table      {os.path.relpath(folder / 'metrics.csv')}")
    print(f"curves     tensorboard --logdir {os.path.relpath(sweep)}")
    return unfinished


def _print_claims(claims: "list[Claim]", run: Run) -> None:
    if not claims:
        return
    print(f"the chapter's claims, on {run.option('data')}\n")
    for claim in claims:
        print(f"{claim.verdict:<10} {claim.claim}")
        for line in wrap(f"{claim.measurement}. It holds if: {claim.criterion}.", 105):
            print(f"           {line}")
    if any(claim.holds is None for claim in claims):
        print("\nUndecided for want of seeds: seed=0,1,2 sweeps over them.")
    print()


def _no_runs(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if Run(folder).config_file.is_file():
        return "this is a run; name the folder of its sweep"
    return "there is no run in this folder"
