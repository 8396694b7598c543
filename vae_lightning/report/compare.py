"""Comparing runs: `report/index.html`, `comparison.png` and `metrics.csv`, made from the files of the runs alone."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from ..runs import (
    VERSION,
    Run,
    best_first,
    differing_options,
    folders_of_runs,
    is_search,
    matching,
    plain_cell,
    scored_by,
    sweep_runs,
    swept_keys,
)

if TYPE_CHECKING:
    import pandas as pd

    from .claims import Claim
    from .frontier import Frontier

__all__ = ["Comparison", "HasRun", "compare"]


class HasRun(Protocol):
    """An object with a run, such as the result of `load_run` or `train`."""

    @property
    def run(self) -> Run: ...


BUDGETS = ("trainer.max_epochs", "trainer.max_steps", "trainer.max_time", "data.batch_size")
Source = Path | str | Run | HasRun


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison and its files. A notebook shows it as a table.

    Attributes:
        table: a row for each run: `run`, `status`, what differs, every metric.
        folder: of `index.html`, `metrics.csv` and, if there was anything to draw, `comparison.png` and `frontier.png`.
        runs: all of them, those of a search in the order of their success.
        unfinished: those without metrics, which are named but not compared.
        keys: of the options that differ between the runs.
        claims: the chapter's claims, tested, where the runs can test them.
        sweep: the sweep's folder; None if runs from anywhere were compared.
        notes: what one must know to read the table.
        differences: from the baseline, if there is one; see `vae_lightning.report.differences`.
        frontiers: of rate and distortion, where the weight of the rate differs.
    """

    table: "pd.DataFrame" = field(repr=False)
    folder: Path
    runs: tuple[Run, ...]
    unfinished: tuple[Run, ...]
    keys: tuple[str, ...]
    claims: "tuple[Claim, ...]" = ()
    sweep: Path | None = None
    notes: tuple[str, ...] = ()
    differences: "pd.DataFrame | None" = field(default=None, repr=False)
    frontiers: "tuple[Frontier, ...]" = field(default=(), repr=False)

    def _repr_html_(self) -> str:
        from .differences import differences_table
        from .frontier import frontier_table
        from .table import mean_table, run_table

        tables = [run_table(self.table, self.keys), mean_table(self.table, self.keys)]
        tables += [] if self.differences is None else [differences_table(self.differences)]
        tables += [frontier_table(self.frontiers)] if self.frontiers else []
        parts = [found.to_html(index=False, border=0) for found in tables if found is not None and len(found)]
        parts += [f"<p>{escape(note)}</p>" for note in self.notes]
        parts += [f"<p>{escape(run.name)}: {escape(run.failure)}</p>" for run in self.unfinished]
        page = escape(os.path.relpath(self.folder / "index.html"), quote=True)
        return "\n".join([*parts, f'<p><a href="{page}">{page}</a></p>'])


def compare(
    runs: Source | Sequence[Source], folder: str | Path | None = None, *, where: str = "", baseline: str | None = None
) -> Comparison:
    """Compares runs and writes the report: a page, a table and a picture.

    What differs between the runs of a sweep is what the sweep varies; between other runs, the options in which their
    configurations differ. Runs that different versions of this package have trained are told apart, too.

    Args:
        runs: the folder of a sweep; or folders of runs or sweeps, or of folders of such, or objects that have a `run`.
        folder: where the report goes; a folder's own `report`, or `report` in the current folder, if not given.
        where: a condition for the runs, such as `latent_dim <= 16`; see `vae_lightning.runs.where.matching`.
        baseline: a group of runs from which all others' differences are shown; see
            `vae_lightning.report.differences.differences`.

    Raises:
        FileNotFoundError: if there is no run in one of the folders, or none that meets the condition.
        UsageError: if the condition is none, or no single group is the baseline.

    >>> compare("multirun/…").table[["run", "test/elbo"]]  # doctest: +SKIP
    >>> compare([load_run("outputs/…"), "outputs/…"], folder="conv_or_mlp")  # doctest: +SKIP
    """
    sources = [runs] if isinstance(runs, Path | str | Run) or hasattr(runs, "run") else list(runs)
    sweep = _sweep(sources)
    alone = Path(sources[0]) if len(sources) == 1 and isinstance(sources[0], Path | str) else None
    if folder is None and alone and Run(alone).config_file.is_file():
        raise FileNotFoundError(2, _no_runs(alone), str(alone))
    found = sweep_runs(sweep) if sweep else _runs(sources)
    if where:
        found = matching(found, where)
    if not found:
        raise FileNotFoundError(2, "no run meets the condition" if where else "there are no runs to compare", where)
    keys = (swept_keys(sweep) if sweep else []) or differing_options(found)
    if len({run.version for run in found if run.version}) > 1:
        keys = [*(key for key in keys if key != "seed"), VERSION, *(key for key in keys if key == "seed")]
    if sweep and is_search(sweep):
        found = best_first(found)
    place = Path(folder) if folder is not None else (alone or Path()) / "report"
    return _write(found, keys, place, sweep, baseline)


def _sweep(sources: "Sequence[Source]") -> Path | None:
    """The only source, if it is a sweep's folder."""
    if len(sources) != 1 or not isinstance(sources[0], Path | str):
        return None
    path = Path(sources[0])
    runs = [] if Run(path).config_file.is_file() else sweep_runs(path)
    return path if runs and len(runs) == len(_within(path)) else None


def _runs(sources: "Sequence[Source]") -> list[Run]:
    """The runs of all sources, each one once."""
    found: dict[Path, Run] = {}
    for source in sources:
        for run in _runs_of(source):
            found.setdefault(run.folder.resolve(), run)
    return list(found.values())


def _runs_of(source: "Source") -> list[Run]:
    if not isinstance(source, Path | str):
        return [source if isinstance(source, Run) else source.run]
    run = Run(Path(source))
    runs = [run] if run.config_file.is_file() or run.hydra_file.is_file() else _within(run.folder)
    if not runs:
        raise FileNotFoundError(2, _no_runs(run.folder), str(source))
    return runs


def _within(folder: Path) -> list[Run]:
    """The runs of a sweep; those of any other folder at any depth."""
    direct = sweep_runs(folder)
    if (folder / "multirun.yaml").is_file():
        return direct
    anywhere = [Run(path) for path in folders_of_runs(folder)]
    return anywhere if len(anywhere) > len(direct) else direct


def _no_runs(folder: Path) -> str:
    if not folder.is_dir():
        return "no such folder"
    if Run(folder).config_file.is_file():
        return "this is a run; name the folder of its sweep, or say where the report goes with -o FOLDER"
    return "there is no run in this folder"


def _write(
    runs: Sequence[Run], keys: Sequence[str], folder: Path, sweep: Path | None, baseline: str | None
) -> Comparison:
    # Imported here, so that the command line answers at once if there is nothing to compare.
    from .claims import chapter_claims
    from .differences import differences
    from .frontier import draw_frontiers, frontiers
    from .page import write_page
    from .table import metrics_table, notes_on

    finished = [run for run in runs if run.finished]
    table = metrics_table(runs, keys)
    apart = differences(table, keys, baseline) if baseline and finished else None
    alone = [f"All runs are of the baseline {baseline}: there are no differences from it."]
    alone, apart = (alone, None) if apart is not None and apart.empty else ([], apart)
    folder.mkdir(parents=True, exist_ok=True)
    safe = table.map(lambda value: plain_cell(value) if isinstance(value, str) else value)
    safe.rename(columns=plain_cell).to_csv(folder / "metrics.csv", index=False)
    (folder / "differences.csv").unlink(missing_ok=True)
    if apart is not None:
        apart.map(lambda value: plain_cell(value) if isinstance(value, str) else value).to_csv(
            folder / "differences.csv", index=False
        )
    claims: list[Claim] = []
    for name in ("comparison.png", "frontier.png"):  # earlier ones may show other runs
        (folder / name).unlink(missing_ok=True)
    bought = frontiers(table, keys)
    if bought:
        draw_frontiers(bought, folder / "frontier.png")
    if finished:
        from .picture import comparison_picture

        claims = chapter_claims(finished, keys)
        comparison_picture(finished, keys, folder / "comparison.png")
    notes = [*alone, *_notes_on_search(finished, sweep), *_notes_on_mixture(finished, keys, sweep), *notes_on(table)]
    write_page(runs, keys, table, claims, notes, folder / "index.html", apart, baseline or "", bought)
    unfinished = tuple(run for run in runs if not run.finished)
    results = (tuple(claims), sweep, tuple(notes), apart, tuple(bought))
    return Comparison(table, folder, tuple(runs), unfinished, tuple(keys), *results)


def _notes_on_mixture(runs: Sequence[Run], keys: Sequence[str], sweep: Path | None) -> list[str]:
    """What forbids to compare the runs as they are; a sweep over data or budgets is meant so."""
    different = {
        "data": [key for key in keys if key == "data" or (key.startswith("data.") and key != "data.batch_size")],
        "budgets": [key for key in keys if key in BUDGETS],
    }
    named = [name for name, found in different.items() if found and not sweep]
    digests = {str(run.digests["test"]) for run in runs if "test" in run.digests}
    named += ["data under one name"] if len(digests) > 1 and not different["data"] else []
    named += ["versions of this package"] if VERSION in keys else []
    if not named:
        return []
    listed = " and ".join([", ".join(named[:-1]), named[-1]] if len(named) > 1 else named)
    return [f"These runs are of different {listed}: they are told apart, and a difference may come from that alone."]


def _notes_on_search(finished: Sequence[Run], sweep: Path | None) -> list[str]:
    if not sweep or not is_search(sweep):
        return []
    if all(scored_by(run.metrics) == "val" for run in finished):
        return ["The best first, by the elbo of validation images."]
    return [
        "The best first, by the elbo of the test images: it was chosen by them, so its value is too good. Hold out "
        "images to choose by, with data.validation_size."
    ]
