"""`vae-evaluate RUN…` and `python -m vae_lightning.evaluating RUN…`: options, messages and the table.

This module imports neither torch nor Lightning before the command is parsed, so that help and usage errors appear at
once.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..runs import Run, run_names, sweep_runs

if TYPE_CHECKING:
    from .evaluate import Evaluation

__all__ = ["main"]

EXAMPLES = """\
examples:
  vae-evaluate RUN --bound-samples 5000            a tighter bound of log p(x), and how long it will take
  vae-evaluate RUN --data mnist                    other images than the run's, such as out-of-distribution ones
  vae-evaluate RUN --data folder data.source.path=PICTURES
  vae-evaluate RUN --against mnist,glyphs          whether the bound tells images of other data from the run's
  vae-evaluate RUN --half-samples 50               standard errors of Fréchet distances, precision and the like
  vae-evaluate RUN --annealed-images 100           a bound that owes nothing to the encoder, and how near it comes
  vae-evaluate RUN --checkpoint last               instead of the best checkpoint, where the run kept it
  vae-evaluate SWEEP --quality-images 10000        all finished runs of a sweep; then vae-report SWEEP

RUN is a folder with metrics.json in it. Results are written to RUN/evaluations/NAME.json; vae-report shows them. What
is not asked for is measured as at the end of the training.
"""


def main() -> None:
    """Runs the command; exits with 0, 1 for a failure, 2 for a wrong command or a run that cannot be used."""
    options = _options(sys.argv[1:])
    try:
        _print(_run(options))
    except UsageError as error:
        print(f"vae-evaluate: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        print(f"vae-evaluate: {error.filename or 'failed'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt as stop:
        print(f"vae-evaluate: {stop or 'interrupted'}", file=sys.stderr)
        sys.exit(getattr(stop.__cause__, "code", 130))


def _run(options: argparse.Namespace) -> "list[Evaluation]":
    """Measures all runs, after everything that can be checked before."""
    from .naming import SIZES, evaluation_name, refuse_existing

    sizes = {option: getattr(options, option) for option in SIZES if getattr(options, option) is not None}
    overrides = [text for text in options.runs if _is_override(text)]
    runs = _runs([text for text in options.runs if not _is_override(text)])
    name = evaluation_name(options.name, options.data, overrides, options.checkpoint, sizes, options.against)
    for run in runs:
        refuse_existing(run, name, options.force)

    from ..errors import DataError
    from ..runs.loading import LoadError
    from .evaluate import evaluate

    try:
        return [
            evaluate(
                run.folder,
                options.data,
                overrides,
                checkpoint=options.checkpoint,
                **sizes,
                against=options.against,
                cache=options.cache,
                name=name,
                force=options.force,
                device=options.device,
                data_root=options.data_root,
                config_dir=options.config_dir,
                trust=options.trust,
            )
            for run in runs
        ]
    except (LoadError, DataError) as error:
        raise UsageError(str(error)) from error


def _is_override(text: str) -> bool:
    return text.lstrip("+~").startswith("data.") and "=" in text


def _runs(folders: Sequence[str]) -> list[Run]:
    """The runs that were named, and the finished runs of sweeps."""
    if not folders:
        raise UsageError("name at least one run")
    found: dict[Path, Run] = {}
    for folder in map(Path, folders):
        swept = [] if Run(folder).config_file.is_file() else sweep_runs(folder)
        finished = [run for run in swept if run.finished]
        if swept and not finished:
            raise UsageError(f"{folder}: no run of this sweep has finished")
        for run in finished or [Run(folder)]:
            found.setdefault(run.folder.resolve(), run)
        for run in swept:
            if not run.finished:
                print(f"left out   {run.name}: {run.failure}")
    return list(found.values())


def _print(evaluations: "Sequence[Evaluation]") -> None:
    import pandas as pd

    from ..report.console import in_lines
    from ..report.table import STANDARD_ERROR, against_table, evaluation_table, notes_on

    names = run_names([evaluation.run for evaluation in evaluations])
    metrics = {names[evaluation.run]: evaluation.metrics for evaluation in evaluations}
    table, told = evaluation_table(metrics), against_table(metrics)
    print(table.to_string(index=False))
    if told is not None:
        print(f"\n{told.to_string(index=False)}")
    if "±" in table.to_string():
        print(f"\n{STANDARD_ERROR}")
    rows = [
        {"run": names[evaluation.run], "latent_dim": evaluation.run.metrics["latent_dim"], **evaluation.metrics}
        for evaluation in evaluations
    ]
    for note in notes_on(pd.DataFrame(rows)):
        print(f"\n{in_lines(note)}")
    print("\nAll metrics are in")
    for evaluation in evaluations:
        print(f"  {os.path.relpath(evaluation.file)}")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vae-evaluate",
        description="Measures finished runs again.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or a sweep's; or an option of --data")
    parser.add_argument("--data", metavar="CHOICE", help="of the group data; options of it follow as data.KEY=VALUE")
    parser.add_argument(
        "--against", type=lambda text: text.split(","), default=[], metavar="CHOICE,…",
        help="of the group data: how well the bound of an image tells theirs from the run's",
    )  # fmt: skip
    parser.add_argument("--checkpoint", choices=["best", "last"], help="default: the one that was tested")
    sizes = parser.add_argument_group("sizes", "default: those of the training; 0 leaves a metric out")
    sizes.add_argument("--bound-samples", type=_whole, metavar="N", help="for each image, for the bound of log p(x)")
    sizes.add_argument("--bound-images", type=_whole, metavar="N", help="of the test set, at most, that have so many")
    sizes.add_argument("--training-images", type=_whole, metavar="N", help="at most, for the gap to their elbo")
    sizes.add_argument("--rate-images", type=_whole, metavar="N", help="at most, for the parts of the rate")
    sizes.add_argument("--probe-images", type=_whole, metavar="N", help="at most, for probing codes for classes")
    sizes.add_argument("--quality-images", type=_whole, metavar="N", help="at most, for Fréchet distances and the like")
    sizes.add_argument("--factor-images", type=_whole, metavar="N", help="at most, for scores of disentanglement")
    sizes.add_argument("--plane-points", type=_whole, metavar="N", help="codes, for the faithfulness of their plot")
    sizes.add_argument("--tsne", action=argparse.BooleanOptionalAction, help="whether a t-SNE plot is measured")
    sizes.add_argument("--copy-images", type=_whole, metavar="N", help="of training, at most, to find copies of")
    sizes.add_argument("--half-samples", type=_whole, metavar="N", help="of images, for standard errors of distances")
    sizes.add_argument("--annealed-images", type=_whole, metavar="N", help="for annealed importance sampling")
    sizes.add_argument("--annealed-chains", type=_whole, metavar="N", help="of it, for each image; default: 16")
    sizes.add_argument("--annealed-steps", type=_whole, metavar="N", help="of each chain; default: 500")
    parser.add_argument("--name", help="of the evaluation; default: made from what is asked for")
    parser.add_argument("--force", action="store_true", help="replace an evaluation of the same name")
    parser.add_argument("--device", help="cpu, cuda or mps; default: a GPU if the training could use one")
    parser.add_argument("--data-root", metavar="FOLDER", help="folder of the data sets; default: the run's")
    parser.add_argument("--config-dir", metavar="FOLDER", help="a folder with your own groups, for --data")
    parser.add_argument("--cache", metavar="FOLDER", help="of the data sets' classifiers; default: $VAE_CACHE_DIR")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="MODULE,…",
        help="modules of your own with classes of the run's model; their folder must be on PYTHONPATH",
    )  # fmt: skip
    return parser.parse_intermixed_args(arguments)


def _whole(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 0, not {text}")
    return int(text)
