"""The report as one HTML page, `index.html`, that needs neither network nor server.

It embeds images as WebP, in sheets if there are many, and only once if several runs share them, and data as JSON, which
`templates/page.js` draws.
"""

import base64
import hashlib
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import yaml
from PIL import Image

from .. import plots
from ..runs import Run, run_labels, run_names, short_names, shown
from .curves import learning_curves, terms
from .differences import MARKED, differences_table
from .files import Arrays, is_exact, read_explorer, read_picture
from .frontier import Frontier, frontier_table
from .metrics import describe
from .table import SAME_FOR_ALL_SEEDS, mark, repeated, spread

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
    sheets: dict[str, str] = {}
    labels = run_labels(finished, keys)
    drawn = [_run_data(run, labels[run], _group(run, keys, labels[run]), sheets) for run in detailed]
    of_group = {run["group"]: number for number, run in enumerate({run["group"]: run for run in drawn}.values())}
    for run in drawn:
        run["colour"] = of_group[run["group"]]
    data = {
        "runs": drawn,
        "terms": [[name, describe(f"test/{name}").label, describe(f"test/{name}").unit] for name in _terms(drawn)],
        "sheets": sheets,
        "palette": plots.PALETTE,
        "heads": [short_names(keys)[key] for key in _aggregated(table, keys)[0]],
        "groups": _groups(table, keys),
        "axes": _axes(table, keys),
    }
    names, tested = run_names(runs), [_tested(run) for run in runs]
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vae_lightning.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html").render(
        title=_study(finished or runs),
        facts=_facts(finished, keys),
        sentence=_sentence(table, keys, tested),
        table=_table(table, keys, tested),
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


def _aggregated(table: pd.DataFrame, keys: Sequence[str]) -> tuple[list[str], list[tuple[list[str], pd.DataFrame]]]:
    """The finished runs grouped by everything but the seed, and the keys that distinguish the groups."""
    finished = table[table["status"] == "finished"] if len(table) else table
    finished = finished.fillna({key: shown(None) for key in keys if key in finished})
    others = [key for key in keys if key != "seed"]
    if "seed" in keys and len(finished) > 1:
        groups = finished.groupby(others or "status", sort=False)
        return others, [([shown(rows.iloc[0][key]) for key in others] or ["all seeds"], rows) for _, rows in groups]
    labels = [[shown(row[key]) for key in keys] or [str(row["run"])] for _, row in finished.iterrows()]
    return list(keys), [(label, finished.iloc[[i]]) for i, label in enumerate(labels)]


def _metric_columns(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The numeric metrics of the runs, not their options, known ones first, in the order of their descriptions."""
    from .metrics import METRICS

    numeric = [
        str(name) for name in table.columns if pd.api.types.is_numeric_dtype(table[name]) and table[name].notna().any()
    ]
    hidden = repeated(table)
    numeric = [name for name in numeric if name not in hidden]
    known = [name for name in METRICS if name in numeric]
    return known + [name for name in numeric if name not in {*METRICS, *keys, "latent_dim", "seed"}]


def _tested(run: Run) -> tuple[str, str]:
    """The test images, by their digest if it is known, and the likelihood: elbos of others are not comparable."""
    digests = run.environment.get("data")
    images = digests.get("test") if isinstance(digests, dict) else None
    return f"{images or run.option('data.name')}, {run.option('data.binarize')}", str(
        run.option("model.likelihood._target_")
    )


def _different(tested: Sequence[tuple[str, str]]) -> str:
    """What differs between what runs are tested on."""
    parts = zip(("data", "likelihoods"), zip(*tested, strict=True), strict=False)
    return " and ".join(name for name, found in parts if len(set(found)) > 1)


def _table(table: pd.DataFrame, keys: Sequence[str], tested: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Columns, and rows of cells by kind of model: text, the value to sort by, and whether it is the best of its kind.

    If the runs are of one kind, its name is empty. The best of its kind is that of the same data, in nats also of the
    same likelihood.
    """
    group_keys, groups = _aggregated(table, keys)
    names = short_names(group_keys)
    columns = _metric_columns(table, keys)
    kinds: dict[str, list[dict[str, Any]]] = {}
    for labels, found in groups:
        row = {"labels": labels, "count": len(found), "cells": [_cell(name, found) for name in columns]}
        row["tested"] = tested[found.index[0]]
        kinds.setdefault(found["kind"].iloc[0] if "kind" in found else "", []).append(row)
    for rows in kinds.values():
        _mark_best(columns, rows)
    return {
        "heads": [names[key] for key in group_keys] or ["run"],
        "metrics": [describe(name) for name in columns],
        "kinds": kinds,
        "different": _different([row["tested"] for rows in kinds.values() for row in rows]),
        "seeds": any(row["count"] > 1 for rows in kinds.values() for row in rows),
    }


def _mark_best(columns: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    for position, name in enumerate(columns):
        metric, comparable = describe(name), defaultdict[Any, list[dict[str, Any]]](list)
        for row in rows:
            if row["cells"][position]["value"] is not None:
                comparable[row["tested"][: 2 if metric.unit == "nats" else 1]].append(row["cells"][position])
        for cells in comparable.values():
            values = {cell["value"] for cell in cells}
            if metric.better and len(values) > 1:
                best = max(values) if metric.better > 0 else min(values)
                for cell in cells:
                    cell["best"] = cell["value"] == best


def _cell(name: str, rows: pd.DataFrame) -> dict[str, Any]:
    metric, values = describe(name), rows[name]
    mean = values.mean()
    if not math.isfinite(mean):
        return {"text": "", "value": None, "best": False}
    text = metric.write(mean) if name in SAME_FOR_ALL_SEEDS else spread(values, metric)
    return {"text": text.replace("-", "−") + mark(rows, name), "value": float(mean), "best": False}


def _sentence(table: pd.DataFrame, keys: Sequence[str], tested: Sequence[tuple[str, str]]) -> str:
    """The result: the best group by the test elbo against the worst, if they can be compared."""
    group_keys, groups = _aggregated(table, keys)
    if not groups:
        return "No run has finished."
    groups = [group for group in groups if "test/elbo" in group[1] and group[1]["test/elbo"].notna().all()]
    if not groups:
        return "None of the models has a bound of log p(x)."
    if different := _different([tested[rows.index[0]] for _, rows in groups]):
        return (
            f"The test elbos are of different {different}, so they are not ranked; the table marks the best of those "
            "that can be compared."
        )
    elbo = describe("test/elbo")

    def name(labels: list[str]) -> str:
        return _name(group_keys, labels)

    def value(rows: pd.DataFrame) -> str:
        return spread(rows["test/elbo"], elbo).replace("-", "−")

    ranked = sorted(groups, key=lambda group: -group[1]["test/elbo"].mean())
    best, worst = ranked[0], ranked[-1]
    seeds = f", mean ± standard deviation over {len(best[1])} seeds" if len(best[1]) > 1 else ""
    if len(ranked) == 1:
        return f"The test elbo is {value(best[1])} nats per image{seeds}."
    gap = best[1]["test/elbo"].mean() - worst[1]["test/elbo"].mean()
    return (
        f"The best test elbo is that of {name(best[0])}: {value(best[1])} nats per image{seeds}, {gap:.1f} above that "
        f"of {name(worst[0])}, {value(worst[1])}."
    )


def _name(keys: Sequence[str], labels: Sequence[str]) -> str:
    """The keys and values that tell a group apart, or its first label if that is not the value of a key."""
    names = short_names(keys)
    return ", ".join(f"{names[key]} = {label}" for key, label in zip(keys, labels, strict=False)) or labels[0]


def _groups(table: pd.DataFrame, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Means and spreads of every metric, for the charts of rate and distortion and over the latent dimension."""
    group_keys, groups = _aggregated(table, keys)
    columns = _metric_columns(table, keys)
    found = []
    for labels, rows in groups:
        metrics = {key: [float(rows[key].iloc[0]), 0.0] for key in _numbers(rows, group_keys)}
        for name in columns:
            mean, deviation = rows[name].mean(), rows[name].std()
            if math.isfinite(mean):
                metrics[name] = [float(mean), float(deviation) if math.isfinite(deviation) else 0.0]
        dimension = rows["latent_dim"].iloc[0] if "latent_dim" in rows and rows["latent_dim"].nunique() == 1 else None
        found.append(
            {
                "label": _name(group_keys, labels),
                "name": ", ".join(labels),
                "labels": labels,
                "latent_dim": None if dimension is None else int(dimension),
                "metrics": metrics,
            }
        )
    return found


def _numbers(table: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """The keys that have numbers."""
    return [key for key in keys if key in table and pd.api.types.is_numeric_dtype(table[key])]


def _axes(table: pd.DataFrame, keys: Sequence[str]) -> list[tuple[str, str, str]]:
    """The name, label and unit of all that one axis of a chart can show: options with numbers, and metrics."""
    numbers = _numbers(table, [key for key in keys if key != "seed"])
    names, metrics = short_names(numbers), [(name, describe(name)) for name in _metric_columns(table, keys)]
    found = [(key, names[key], "") for key in numbers]
    return found + [(name, metric.label, metric.unit) for name, metric in metrics if name not in numbers]


def _run_data(run: Run, label: str, group: str, sheets: dict[str, str]) -> dict[str, Any]:
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
            {"step": step, "src": _add(picture, sheets, quality=60)} for step, picture in drawn if picture is not None
        ],
        "explorer": _explorer(run, sheets),
    }


def _explorer(run: Run, sheets: dict[str, str]) -> dict[str, Any] | None:
    found = read_explorer(run)
    if found is None:
        return None
    try:
        return _explorer_data(found, int(run.metrics["latent_dim"]), sheets)
    except (ValueError, TypeError):  # images of another shape or type
        return None


def _explorer_data(found: Arrays, latent_dim: int, sheets: dict[str, str]) -> dict[str, Any]:
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
        "lattice": {"sheet": _sheet(lattice, sheets), "rows": rows, "columns": lattice.shape[1]},
        "images": {"sheet": _sheet(_in_rows(found["images"]), sheets), "columns": _columns(len(found["images"]))},
        "explained": found["explained"].tolist(),
        "dimensions": found["dimensions"].tolist(),
        "values": found["values"].tolist(),
        "slides": _sheet(slides, sheets) if slides.size else None,
        "exact": is_exact(found, latent_dim),
        "axes": [str(name) for name in found["names"]] if "names" in found else None,
    }


def _columns(count: int) -> int:
    return math.ceil(math.sqrt(count))


def _in_rows(images: np.ndarray) -> np.ndarray:
    """Images `(N, C, H, W)` as `(R, S, C, H, W)`, padded with black images."""
    columns = _columns(len(images))
    rows = -(-len(images) // columns)
    filled = np.zeros((rows * columns, *images.shape[1:]), np.uint8)
    filled[: len(images)] = images
    return filled.reshape(rows, columns, *images.shape[1:])


def _sheet(images: np.ndarray, sheets: dict[str, str]) -> str:
    """Adds images `(R, S, C, H, W)`, uint8, side by side as one picture; returns its key."""
    rows, columns, channels, height, width = images.shape
    quality = 80 if channels == 1 else 90  # below that, colours run into the next image
    picture = images.transpose(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return _add(Image.fromarray(picture.squeeze(2) if channels == 1 else picture), sheets, quality)


def _add(picture: Image.Image, sheets: dict[str, str], quality: int) -> str:
    content = io.BytesIO()
    picture.convert("RGB").save(content, "WEBP", quality=quality, method=4)
    key = hashlib.sha256(content.getvalue()).hexdigest()[:12]
    sheets[key] = "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()
    return key


def _galleries(labels: Mapping[Run, str]) -> list[dict[str, Any]]:
    """The runs' own figures, by kind; of many runs, those of evenly spaced ones."""
    found = []
    for stem, title in GALLERIES.items():
        having = [run for run in labels if (run.figures / f"{stem}.png").is_file()]
        pictures = []
        for run in plots.evenly_spaced(having, 4):
            sheets: dict[str, str] = {}
            if picture := read_picture(run.figures / f"{stem}.png"):
                picture.thumbnail((900, 900))
                pictures.append((labels[run], sheets[_add(picture, sheets, quality=70)]))
        if pictures:
            found.append({"title": title, "pictures": pictures})
    return found


def _recipe(run: Run, label: str) -> dict[str, Any]:
    """The command, environment and configuration with which to run it again."""
    environment = dict(run.environment)
    command = " ".join(map(str, environment.pop("command", ())))
    config = yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    return {"label": label, "command": command, "environment": environment, "config": config}
