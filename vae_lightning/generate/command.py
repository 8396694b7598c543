"""`vae-generate VERB RUN` and `python -m vae_lightning.generate VERB RUN`: options, formats and messages.

This module imports neither torch nor Lightning before the command is parsed, so that help and usage errors appear at
once.
"""

import argparse
import math
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..errors import UsageError

__all__ = ["main"]

FORMATS = {
    "sample": (".png", ".gif", ".npz"),
    "reconstruct": (".png", ".npz"),
    "encode": (".npz", ".csv"),
    "interpolate": (".png", ".gif", ".npz"),
    "traverse": (".png", ".gif", ".npz"),
    "lattice": (".png", ".npz"),
    "export": (".onnx", ".pt"),
}

EXAMPLES = """\
examples:
  vae-generate sample RUN                          64 samples from the prior, as sample.png
  vae-generate sample RUN -n 10000 -o samples.npz  an array (10000, C, H, W), uint8
  vae-generate sample RUN --label 3,7 -n 20        20 samples of two classes, in turn
  vae-generate reconstruct RUN a.png b.png         the images above their reconstructions
  vae-generate encode RUN --test 1000 -o codes.csv codes of test images, with their classes
  vae-generate interpolate RUN 3 17 -o path.gif    from test image 3 to test image 17
  vae-generate traverse RUN --dimensions 4,9       two dimensions, from -3 to 3
  vae-generate lattice RUN --quantiles             the latent plane
  vae-generate export RUN -o model.onnx            model-encoder.onnx and model-decoder.onnx
  vae-generate fit-prior RUN --kind flow           a prior where the codes are, kept as priors/flow.pt in the run
  vae-generate sample RUN --prior flow             samples from it

RUN is a folder with metrics.json in it, as in multirun/2026-01-01_…/latent_dim-2. The suffix of -o chooses the format.
"""


def main() -> None:
    """Runs the command; exits with 0, 1 for a failure, 2 for a wrong command or a run that cannot be used."""
    options = _options(sys.argv[1:])
    try:
        for file, content in _run(options).items():
            print(f"{file}: {content}")
    except UsageError as error:
        print(f"vae-generate {options.verb}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = error.filename or options.output or options.verb
        print(f"vae-generate {options.verb}: {where}: {error.strerror or error}", file=sys.stderr)
        sys.exit(1)


def _run(options: argparse.Namespace) -> dict[Path, str]:
    """Does what the options say; returns what was written, by file."""
    output = _output(options)
    from ..engine.devices import named_device
    from ..errors import DataError
    from ..runs.loading import LoadError, load_run
    from . import export, fit_prior, images, latent_pictures

    verbs = {
        "sample": images.write_samples,
        "reconstruct": images.write_reconstructions,
        "encode": images.write_codes,
        "interpolate": latent_pictures.write_interpolation,
        "traverse": latent_pictures.write_traversal,
        "lattice": latent_pictures.write_lattice,
        "export": export.write_models,
        "fit-prior": fit_prior.write_prior,
    }
    try:
        run = load_run(options.run, named_device(options.device), options.trust)
        fit_prior.use_prior(run, getattr(options, "prior", None))
        return verbs[options.verb](run, options, output)
    except LoadError as error:
        raise UsageError(str(error)) from error
    except DataError as error:
        raise UsageError(f"no images were named, and there are no test images: {error}") from error


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser, verbs = _parsers()
    # Images may follow options, as in `encode RUN --seed 1 a.png`: argparse allows it, but not through subparsers.
    if arguments and arguments[0] in verbs:
        return verbs[arguments[0]].parse_intermixed_args(arguments[1:])
    return parser.parse_args(arguments)


def _parsers() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The command's parser, and each verb's own."""
    parser = argparse.ArgumentParser(
        prog="vae-generate",
        description="Uses a trained run.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    common, file = _common(), _file()
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        formats = " ".join(FORMATS[name])
        long = f"{text[0].upper()}{text[1:]}. Formats: {formats}; default {name}{FORMATS[name][0]}"
        added = subparsers.add_parser(name, parents=[common, file], help=text, description=textwrap.fill(long, 100))
        added.set_defaults(verb=name)
        return added

    sample = verb("sample", "decodes codes drawn from the prior")
    sample.add_argument("-n", "--count", type=_positive, default=64, help="number of samples; default 64")
    sample.add_argument("--temperature", type=_finite, default=1.0, help="factor of the prior's noise; default 1")
    sample.add_argument("--prior", metavar="NAME", help="a prior made by fit-prior; default: the model's own")
    sample.add_argument(
        "--label", metavar="CLASS,…", type=_listed, default=[],
        help="names or numbers of classes, for a conditional model, which otherwise draws them evenly",
    )  # fmt: skip
    reconstruct = verb("reconstruct", "encodes and decodes images")
    encode = verb("encode", "writes the codes of images and the standard deviations of their posteriors")
    for takes_images in (reconstruct, encode):
        takes_images.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="files; default: test images")
        takes_images.add_argument("--test", type=_positive, default=20, help="number of test images; default 20")
    interpolate = verb("interpolate", "decodes the codes between those of two images")
    for end in ("start", "end"):
        interpolate.add_argument(end, metavar=end.upper(), help="a file, or the number of a test image")
    interpolate.add_argument("--steps", type=_positive, default=16, help="pictures, both ends included; default 16")
    interpolate.add_argument("--spherical", action="store_true", help="along a great circle instead of a line")
    traverse = verb("traverse", "changes one dimension of a code at a time")
    traverse.add_argument("--dimensions", metavar="1,2,…", help="counted from 1; default: the 10 most used ones")
    traverse.add_argument(
        "--image", help="the image whose code is changed, a file or the number of a test image; default: code 0"
    )
    traverse.add_argument("--extent", type=_length, default=3.0, help="values from -extent to extent; default 3")
    traverse.add_argument("--steps", type=_positive, default=11, help="values of each dimension; default 11")
    lattice = verb("lattice", "decodes a lattice over a latent space with one or two dimensions")
    lattice.add_argument(
        "--extent", type=_length, help="values from -extent to extent; default 3, on a sphere all of it"
    )
    lattice.add_argument("--cells", type=_positive, default=20, help="along each side; default 20")
    lattice.add_argument("--quantiles", action="store_true", help="at equally likely steps of the normal distribution")
    verb("export", "writes encoder and decoder as ONNX files, or the weights as a plain state dict")
    text = "fits a prior to the codes of training images, for better samples, and keeps it in the run as priors/NAME.pt"
    fitted = subparsers.add_parser("fit-prior", parents=[common], help=text, description=textwrap.fill(text, 100))
    fitted.set_defaults(verb="fit-prior", output=None)
    fitted.add_argument("--kind", choices=("gaussian_mixture", "flow", "two_stage", "autoregressive"), required=True)
    fitted.add_argument("--name", help="letters, digits and . _ - only; default: the kind")
    fitted.add_argument("--images", type=_positive, default=20_000, help="training images, at most; default 20000")
    fitted.add_argument("--steps", type=_positive, default=1000, help="of fitting, at most; default 1000")
    fitted.add_argument("--components", type=_positive, help="of the mixture; default 10")
    fitted.add_argument("--transforms", type=_positive, help="layers of the flow; default 3")
    return parser, subparsers.choices


def _common() -> argparse.ArgumentParser:
    """The options that all verbs have."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    common.add_argument("--force", action="store_true", help="overwrite an existing file")
    common.add_argument("--device", default="cpu", help="cpu (default), cuda or mps")
    common.add_argument("--seed", type=int, default=0, help="of random samples; default 0")
    common.add_argument("--data-root", metavar="FOLDER", help="folder of the data sets; default: the run's")
    common.add_argument(
        "--trust", action="append", default=[], metavar="MODULE,…",
        help="modules of your own with classes of the run's model; their folder must be on PYTHONPATH",
    )  # fmt: skip
    return common


def _file() -> argparse.ArgumentParser:
    """The option of the verbs that write a file anywhere."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="output file; its suffix chooses the format")
    return parser


def _listed(text: str) -> list[str]:
    return text.split(",")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text}")
    return int(text)


def _finite(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"must be a number, not {text}")
    return number


def _length(text: str) -> float:
    if (length := _finite(text)) <= 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text}")
    return length


def _output(options: argparse.Namespace) -> Path:
    """The output file: in a format of the verb, and nothing is overwritten unasked."""
    if options.verb == "fit-prior":
        return _prior_file(options)
    formats = FORMATS[options.verb]
    output: Path = options.output or Path(options.verb + formats[0])
    if output.suffix not in formats:
        raise UsageError(f"-o {output}: the suffix must be one of {' '.join(formats)}")
    for file in _files(output, options.verb):
        if file.exists() and not options.force:
            raise UsageError(f"{file} exists already; overwrite it with --force, or name another file with -o")
        if not file.parent.is_dir():
            raise UsageError(f"-o {output}: there is no folder {file.parent}")
    return output


def _prior_file(options: argparse.Namespace) -> Path:
    from ..runs import Run
    from ..runs.fitted_priors import LoadError, check_name

    name = options.name or options.kind
    try:
        check_name(name)
    except LoadError as error:
        raise UsageError(f"--name {error}") from error
    file = Run(options.run).prior_file(name)
    if file.exists() and not options.force:
        raise UsageError(f"{file} exists already; overwrite it with --force, or choose another --name")
    return file


def _files(output: Path, verb: str) -> list[Path]:
    """The files that a verb writes for an output."""
    if verb == "export" and output.suffix == ".onnx":
        return [output.with_name(f"{output.stem}-{part}.onnx") for part in ("encoder", "decoder")]
    return [output]
