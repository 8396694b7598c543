"""`vae-train --again RUN`: trains a finished run once more, and says whether the result is bit by bit the same."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import DataError, UsageError
from .runs import Run, short_path

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OPTION", "Repetition", "main", "repeat"]

OPTION = "--again"
OF_TIME = {"seconds_training", "images_per_second"}
SHOWN = 20  # lines of differences
MOST_THREADS = 1024


@dataclass(frozen=True)
class Repetition:
    """The result of training a run once more.

    Attributes:
        run: the new one.
        kept: whether the first run kept its weights, so that they could be compared.
        tensors: names of the weights that differ.
        metrics: the metrics that differ, each with both values; times are not compared.
        environment: what differs in versions, machine, data and code, a line each.
    """

    run: Run
    kept: bool
    tensors: tuple[str, ...]
    metrics: Mapping[str, tuple[float | None, float | None]]
    environment: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether the weights and the metrics are bit by bit the same."""
        return not self.tensors and not self.metrics


def repeat(
    run: str | Path, folder: str | Path | None = None, trust: str | Sequence[str] = (), progress: bool | None = None
) -> Repetition:
    """Trains a finished run once more, with its configuration, its seed and as many threads.

    Only classes of this package, PyTorch's and Lightning's are made, unless others are trusted; these read and write
    files where the configuration says, and in the new run's folder what the first run wrote to its own.

    Args:
        run: its folder.
        folder: of the new run; by default a new one in `outputs/`.
        trust: modules of your own that the configuration names; see `vae_lightning.load_run`.
        progress: see `vae_lightning.train`.

    Raises:
        LoadError: if the folder is not a finished run, or names a class that must not be instantiated.
        UsageError: if the configuration cannot be used here, such as one for a GPU.
    """
    import torch
    from omegaconf import OmegaConf

    from .runs.loading import configuration, load_run
    from .runs.trust import trusted_modules, vet
    from .training import train

    first = Run(Path(run))
    found = configuration(first)
    nodes = ("model", "data", "trainer", "callbacks", "logger", "engine")
    vet({node: found.get(node) for node in nodes}, (*trusted_modules(trust), "pytorch_lightning"))
    config = OmegaConf.create({**found, "resume": False})
    place = Path(folder or Path("outputs", f"{datetime.now():%Y-%m-%d_%H-%M-%S}_again_{first.name}"))
    threads, used = torch.get_num_threads(), first.environment.get("threads")
    if isinstance(used, int) and 0 < used <= MOST_THREADS:
        torch.set_num_threads(used)
    try:
        second = train(config, place, progress).run
    finally:
        torch.set_num_threads(threads)
    kept = first.weights_file.is_file()
    before, after = (
        {} if not kept else load_run(each.folder, trust=trust).model.state_dict() for each in (first, second)
    )
    names = sorted({*before, *after})
    metrics = {
        name: (first.metrics.get(name), second.metrics.get(name))
        for name in sorted({*first.metrics, *second.metrics} - OF_TIME)
    }
    return Repetition(
        second,
        kept,
        tuple(name for name in names if not _same(before.get(name), after.get(name))),
        {name: values for name, values in metrics.items() if values[0] != values[1]},
        tuple(_differing(first, second)),
    )


def _same(one: "Tensor | None", other: "Tensor | None") -> bool:
    import torch

    return one is not None and other is not None and one.dtype == other.dtype and torch.equal(one, other)


def _differing(first: Run, second: Run) -> list[str]:
    from .runs.provenance import differing_environment

    return differing_environment(first.environment, second.environment)


def main() -> None:
    """Exits with 0 if the result is the same, with 1 if not, with 2 if the run cannot be repeated."""
    from .config.messages import explain
    from .runs.loading import LoadError

    parser = argparse.ArgumentParser(
        prog="vae-train", description="Trains a finished run once more, and says whether the result is the same."
    )
    parser.add_argument(OPTION, dest="run", required=True, metavar="RUN", help="a run's folder")
    parser.add_argument("-o", "--output", metavar="FOLDER", help="of the new run; default: a new one in outputs/")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="MODULE,…",
        help="modules of your own that the run's configuration names; their folder must be on PYTHONPATH",
    )  # fmt: skip
    options = parser.parse_args()
    try:
        found = repeat(options.run, options.output, options.trust)
    except (LoadError, UsageError, DataError) as error:
        print(f"vae-train {OPTION}: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        print(f"vae-train {OPTION}: {explain(error)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"vae-train {OPTION}: {stop or 'interrupted'}", file=sys.stderr)
        sys.exit(130)
    _print(found, Run(Path(options.run)))
    sys.exit(0 if found.equal else 1)


def _print(found: Repetition, first: Run) -> None:
    compared = len(found.run.metrics.keys() - OF_TIME)
    if found.equal:
        what = f"all weights and {compared} metrics" if found.kept else f"{compared} metrics; its weights were not kept"
        print(f"equal      bit by bit to {short_path(first.folder)}: {what}")
    else:
        print(f"different  {len(found.tensors)} weights and {len(found.metrics)} of {compared} metrics")
    lines: list[tuple[str, Any]] = [("metric", f"{name}: {a} → {b}") for name, (a, b) in found.metrics.items()]
    lines = lines[:SHOWN] + [("", f"and {len(lines) - SHOWN} more")] * (len(lines) > SHOWN)
    lines += [("here", line) for line in found.environment[:SHOWN]]
    lines += [("", f"and {len(found.environment) - SHOWN} more")] * (len(found.environment) > SHOWN)
    for label, line in lines:
        print(f"{label:<10} {line}")
