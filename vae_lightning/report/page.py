"""The report as one HTML page, `index.html`, that needs neither network nor server.

It embeds images, and data as JSON, which `templates/page.js` draws.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml

from .. import plots
from ..runs import Run, run_labels, run_names, short_names, shown, tested_on
from .curves import learning_curves, terms
from .differences import MARKED, differences_table
from .files import Arrays, is_exact, read_explorer, read_picture
from .frontier import Frontier, frontier_table
from .groups import Groups
from .metrics import describe
from .sheets import Sheets, columns, embedded, in_rows

__all__ = ["write_page"]

DETAILED = 24  # runs with curves, samples, explorer and recipe; of more, evenly spaced ones
GRIDS = 12  # from each run's training, evenly spaced
POINTS = 150  # of a learning curve
GALLERIES = {
    "reconstructions": "Test images above their reconstructions",
    "samples": "Samples from the prior",
    "nearest_training_images": "Samples above the nearest training image, and their distance",
    "samples_by_class": "Samples of each class, the same noise in each column",
    "traversals": "The most used dimensions, traversed",
    "lattice_of_quantiles": "The latent plane, at equally likely steps",
    "lattice": "The latent plane, as the chapter draws it",
}


def write_page(
    runs: Sequence[Run],
    keys: Sequence[str],
    table: pd.DataFrame,
    claims: Sequence[Any],
    notes: Sequence[str],
    file: Path,
    apart: pd.DataFrame | None = None,
    baseline: str = "",
    bought: Sequence[Frontier] = (),
) -> None:
    """Writes the page.

    Args:
        runs: all runs; unfinished ones are named, with the reason.
        keys: the options in which they differ.
        table: their `metrics_table`.
        claims: the `chapter_claims` of the finished ones.
        notes: what one must know to read the table.
        file: to be written.
        apart: `differences` from the baseline.
        baseline: as it was asked for.
        bought: the frontiers of the finished runs, whose picture is beside the page.
    """
    finished = [run for run in runs if run.finished]
    detailed = plots.evenly_spaced(finished, DETAILED)
    sheets = Sheets()
    labels = run_labels(finished, keys)
    drawn = [_run_data(run, labels[run], _group(run, keys, labels[run]), sheets) for run in detailed]
    of_group = {run["group"]: number for number, run in enumerate({run["group"]: run for run in drawn}.values())}
    for run in drawn:
        run["colour"] = of_group[run["group"]]
    groups = Groups(table, keys, [tested_on(run) for run in runs])
    data = {
        "runs": drawn,
        "terms": [[name, describe(f"test/{name}").label, describe(f"test/{name}").unit] for name in _terms(drawn)],
        "sheets": sheets.sources,
        "palette": plots.PALETTE,
        "heads": groups.heads,
        "groups": groups.charts(),
        "axes": groups.axes(),
    }
    names = run_names(runs)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vae_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html").render(
        title=_study(finished or runs),
        facts=_facts(finished, keys),
        sentence=groups.sentence,
        table=groups,
        unfinished=[(names[run], run.failure) for run in runs if not run.finished],
        claims=claims,
        baseline=baseline,
        differences=None if apart is None else _rows_of_text(differences_table(apart)),
        marked=MARKED if apart is not None and apart["differs"].any() else "",
        notes=notes,
        frontiers=_rows_of_text(frontier_table(bought)) if bought else [],
        frontier_picture=_embedded(file.with_name("frontier.png")) if bought else "",
        galleries=_galleries(labels),
        recipes=[_recipe(run, labels[run]) for run in detailed],
        detailed=len(detailed),
        finished=len(finished),
        data=data,
    )
    partial = file.with_name(file.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    partial.replace(file)


def _embedded(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _rows_of_text(table: pd.DataFrame) -> list[list[str]]:
    """The headings and the cells of a table, with minus signs."""
    return [
        list(map(str, table.columns)),
        *(
            [str(cell).replace("-", "−") if column else str(cell) for column, cell in enumerate(row)]
            for row in table.to_numpy()
        ),
    ]


def _study(runs: Sequence[Run]) -> str:
    studies = dict.fromkeys(str(run.option("study")) for run in runs if run.option("study"))
    return ", ".join(studies).replace("_", " ") or "comparison"


def _group(run: Run, keys: Sequence[str], label: str) -> str:
    """The label that a run shares with runs that differ only in the seed."""
    others = [key for key in keys if key != "seed"]
    return run_labels([run], others)[run] if "seed" in keys and others else label


def _terms(drawn: Sequence[dict[str, Any]]) -> list[str]:
    return terms(run["curves"] for run in drawn)


def _facts(runs: Sequence[Run], keys: Sequence[str]) -> list[tuple[str, str]]:
    """The values of what differs, and what the runs share."""
    names = short_names(keys)
    facts = [(names[key], _listed(list(dict.fromkeys(shown(run.option(key)) for run in runs)))) for key in keys]
    for label, key in [("data", "data.name"), ("architecture", "model"), ("objective", "model/objective")]:
        if key not in keys and (label != "data" or "data" not in keys):
            facts.append((label, ", ".join(dict.fromkeys(str(run.option(key)) for run in runs))))
    facts.append(("epochs", ", ".join(dict.fromkeys(str(run.metrics["epochs"]) for run in runs))))
    return [(label, values) for label, values in facts if values and values != "None"]


def _listed(values: list[str]) -> str:
    """Values in a line; of many, the first and the last."""
    if len(values) <= 12:
        return ", ".join(values)
    return f"{', '.join(values[:6])}, … {values[-1]} ({len(values)} values)"


def _run_data(run: Run, label: str, group: str, sheets: Sheets) -> dict[str, Any]:
    grids = run.grids()
    drawn = [(step, read_picture(grids[step])) for step in plots.evenly_spaced(list(grids), GRIDS)]
    curves = {}
    for name, (steps, values) in learning_curves(run).items():
        kept = [i for i in plots.evenly_spaced(range(len(steps)), POINTS) if math.isfinite(values[i])]
        curves[name] = [[steps[i] for i in kept], [float(f"{values[i]:.6g}") for i in kept]]
    return {
        "name": run.name,
        "label": label,
        "group": group,
        "curves": curves,
        "grids": [
            {"step": step, "src": sheets.add(picture, quality=60)} for step, picture in drawn if picture is not None
        ],
        "explorer": _explorer(run, sheets),
    }


def _explorer(run: Run, sheets: Sheets) -> dict[str, Any] | None:
    found = read_explorer(run)
    if found is None:
        return None
    try:
        return _explorer_data(found, int(run.metrics["latent_dim"]), sheets)
    except (ValueError, TypeError):  # images of another shape or type
        return None


def _explorer_data(found: Arrays, latent_dim: int, sheets: Sheets) -> dict[str, Any]:
    lattice, slides = found["lattice"], found["slides"]
    decoded = found["decoded_classes"].tolist() if "decoded_classes" in found else []
    rows, rest = divmod(len(lattice), max(1, len(decoded)))  # of each
    if rest or not rows or len(slides) != len(found["dimensions"]) * max(1, len(decoded)):
        raise ValueError("lattice and slides: must be whole for each decoded class")
    return {
        "decoded": decoded,
        "codes": np.round(found["codes"].astype(float), 3).tolist(),
        "labels": found["labels"].tolist() if "labels" in found else None,
        "classes": [str(name) for name in found.get("class_names", ())],
        "box": found["box"].tolist(),
        "size": list(lattice.shape[-2:]),
        "lattice": {"sheet": sheets.add_images(lattice), "rows": rows, "columns": lattice.shape[1]},
        "images": {"sheet": sheets.add_images(in_rows(found["images"])), "columns": columns(len(found["images"]))},
        "explained": found["explained"].tolist(),
        "dimensions": found["dimensions"].tolist(),
        "values": found["values"].tolist(),
        "slides": sheets.add_images(slides) if slides.size else None,
        "exact": is_exact(found, latent_dim),
        "axes": [str(name) for name in found["names"]] if "names" in found else None,
    }


def _galleries(labels: Mapping[Run, str]) -> list[dict[str, Any]]:
    """The runs' own figures, by kind; of many runs, those of evenly spaced ones."""
    found = []
    for stem, title in GALLERIES.items():
        having = [run for run in labels if (run.figures / f"{stem}.png").is_file()]
        pictures = []
        for run in plots.evenly_spaced(having, 4):
            if picture := read_picture(run.figures / f"{stem}.png"):
                picture.thumbnail((900, 900))
                pictures.append((labels[run], embedded(picture, quality=70)))
        if pictures:
            found.append({"title": title, "pictures": pictures})
    return found


def _recipe(run: Run, label: str) -> dict[str, Any]:
    """The command, environment and configuration with which to run it again."""
    environment = dict(run.environment)
    command = " ".join(map(str, environment.pop("command", ())))
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return {"label": label, "command": command, "environment": environment, "config": config}
