"""A comparison as text, for the command line."""

import os
from textwrap import fill, indent

from ..runs import run_names
from .compare import Comparison

__all__ = ["in_lines", "print_comparison"]

PRINTED = 60  # runs


def in_lines(text: str) -> str:
    """Returns text in lines of at most 105 characters, with names of runs whole, so that they can be copied."""
    return fill(text, 105, break_long_words=False, break_on_hyphens=False)


def print_comparison(comparison: Comparison) -> None:
    """Prints the metrics of a comparison, per image in nats, the chapter's claims, and where its files are."""
    from .differences import MARKED, differences_table
    from .frontier import frontier_table
    from .table import mean_table, run_table

    finished = len(comparison.runs) - len(comparison.unfinished)
    title = f"{os.path.relpath(comparison.sweep)}: " if comparison.sweep else ""
    print(f"comparison {title}{finished} of {len(comparison.runs)} runs finished\n")
    if finished:
        runs = run_table(comparison.table, comparison.keys)
        print(runs.head(PRINTED).to_string(index=False))
        if len(runs) > PRINTED:
            print(f"… and {len(runs) - PRINTED} more in metrics.csv")
        means = mean_table(comparison.table, comparison.keys)
        if means is not None:
            print("\nmean ± standard deviation over seeds\n")
            print(means.to_string(index=False))
        if comparison.differences is not None:
            print("\ndifferences from the baseline ± half the 95 % interval over paired seeds\n")
            print(differences_table(comparison.differences).to_string(index=False))
            if comparison.differences["differs"].any():
                print(f"\n{in_lines(MARKED)}")
        if comparison.frontiers:
            print("\nwhat the weight of the rate buys, nats per image\n")
            print(frontier_table(comparison.frontiers).to_string(index=False))
        print()
        for note in comparison.notes:
            print(in_lines(note), end="\n\n")
        _print_claims(comparison)
    folder = comparison.folder
    if (folder / "comparison.png").is_file():
        print(f"picture    {os.path.relpath(folder / 'comparison.png')}")
    if comparison.frontiers:
        print(f"frontier   {os.path.relpath(folder / 'frontier.png')}")
    print(f"page       {os.path.relpath(folder / 'index.html')}")
    names = run_names(comparison.runs)
    for run in comparison.unfinished:
        print(f"failed     {names[run]}: {run.failure}")
    print(f"table      {os.path.relpath(folder / 'metrics.csv')}")
    if comparison.differences is not None:
        print(f"baseline   {os.path.relpath(folder / 'differences.csv')}")
    if comparison.sweep and any(run.tensorboard.is_dir() for run in comparison.runs):
        print(f"curves     tensorboard --logdir {os.path.relpath(comparison.sweep)}")


def _print_claims(comparison: Comparison) -> None:
    if not comparison.claims:
        return
    finished = next(run for run in comparison.runs if run.finished)
    print(f"the chapter's claims, on {finished.option('data')}\n")
    for claim in comparison.claims:
        print(f"{claim.verdict:<10} {claim.claim}")
        print(indent(in_lines(f"{claim.measurement}. It holds if {claim.criterion}."), " " * 11))
    if any(claim.holds is None for claim in comparison.claims):
        print("\nSome claims are undecided because they need several seeds: sweep over seed=0,1,2.")
    print()
