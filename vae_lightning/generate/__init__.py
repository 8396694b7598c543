"""`vae-generate VERB RUN` and `python -m vae_lightning.generate VERB RUN`: a trained run put to use.

Until the command is understood this module imports neither torch nor Lightning, so that help and mistakes are answered
at once.
"""

import argparse
import csv
import math
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..runs import plain_cell

if TYPE_CHECKING:
    from torch import Tensor

    from ..runs.loading import LoadedRun

__all__ = ["main"]

AT_ONCE = 1000  # images that are decoded or encoded at the same time

EXAMPLES = """\
examples:
  vae-generate sample RUN                          64 samples from the prior, as sample.png
  vae-generate sample RUN -n 10000 -o samples.npz  an array (10000, C, H, W), uint8
  vae-generate reconstruct RUN a.png b.png         the images above their reconstructions
  vae-generate encode RUN --test 1000 -o codes.csv posterior means of test images, with their classes
  vae-generate interpolate RUN 3 17 -o path.gif    from test image 3 to test image 17
  vae-generate traverse RUN --dimensions 4,9       two dimensions, from -3 to 3
  vae-generate lattice RUN --quantiles             the latent plane
  vae-generate export RUN -o model.onnx            model-encoder.onnx and model-decoder.onnx

RUN is a folder with metrics.json in it, as in multirun/2026-01-01_…/latent_dim-2. The ending of -o chooses the format.
"""


def main() -> None:
    """Exits with 0, 1 for a failure, 2 for a wrong command or a run that cannot be used."""
    options = _parser().parse_args()
    try:
        output = _output(options)
        from ..data.sources import DataError
        from ..runs.loading import LoadError, load_run

        try:
            run = load_run(options.run, options.device, options.trust)
            VERBS[options.verb](run, options, output)
        except LoadError as error:
            raise UsageError(str(error)) from error
        except DataError as error:
            raise UsageError(f"test images are needed, or images named as files: {error}") from error
    except UsageError as error:
        print(f"vae-generate {options.verb}: {error}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        where = error.filename or options.output or options.verb
        print(f"vae-generate {options.verb}: {where}: {error.strerror}", file=sys.stderr)
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("run", type=Path, metavar="RUN", help="the run's folder")
    common.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to; the ending chooses the format")
    common.add_argument("--force", action="store_true", help="write over a file that is there")
    common.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    common.add_argument("--seed", type=int, default=0, help="of what is drawn at random; default 0")
    common.add_argument("--data-root", metavar="FOLDER", help="folder of the data sets; default that of the run")
    common.add_argument(
        "--trust", action="append", default=[], metavar="MODULE", help="a module of your own that the run's model needs"
    )
    parser = argparse.ArgumentParser(
        prog="vae-generate",
        description="Puts a trained run to use.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, formats: str, text: str) -> argparse.ArgumentParser:
        long = f"{text[0].upper()}{text[1:]}. Formats: {formats}; default {name}{formats.split()[0]}"
        return verbs.add_parser(name, parents=[common], help=text, description=textwrap.fill(long, 100))

    sample = verb("sample", ".png .gif .npz", "decodes codes drawn from the prior")
    sample.add_argument("-n", "--count", type=_positive, default=64, help="how many; default 64")
    sample.add_argument("--temperature", type=float, default=1.0, help="codes are scaled by it; default 1")
    reconstruct = verb("reconstruct", ".png .npz", "encodes and decodes images")
    encode = verb("encode", ".npz .csv", "writes the posterior means and standard deviations of images")
    for takes_images in (reconstruct, encode):
        takes_images.add_argument("images", nargs="*", type=Path, metavar="IMAGE", help="files; default: test images")
        takes_images.add_argument("--test", type=_positive, default=20, help="how many test images; default 20")
    interpolate = verb("interpolate", ".png .gif .npz", "decodes the codes between those of two images")
    for end in ("start", "end"):
        interpolate.add_argument(end, metavar=end.upper(), help="a file, or the number of a test image")
    interpolate.add_argument("--steps", type=_positive, default=16, help="pictures, the ends included; default 16")
    interpolate.add_argument("--spherical", action="store_true", help="along a great circle instead of a line")
    traverse = verb("traverse", ".png .gif .npz", "changes one dimension of a code at a time")
    traverse.add_argument(
        "--dimensions", metavar="1,2,…", help="which, from 1; default: the most used ones, 10 at most"
    )
    traverse.add_argument(
        "--image", help="a file, or the number of a test image, whose code it is; default: the mean, 0"
    )
    traverse.add_argument("--extent", type=float, default=3.0, help="values from -extent to extent; default 3")
    traverse.add_argument("--steps", type=_positive, default=11, help="values of a dimension; default 11")
    lattice = verb("lattice", ".png .npz", "decodes the latent plane of a run with latent dimension 1 or 2")
    lattice.add_argument("--extent", type=float, default=3.0, help="values from -extent to extent; default 3")
    lattice.add_argument("--cells", type=_positive, default=20, help="along each side; default 20")
    lattice.add_argument("--quantiles", action="store_true", help="at equally likely steps of the normal distribution")
    verb("export", ".onnx .pt", "writes encoder and decoder as ONNX files, or the weights as a plain state dict")
    return parser


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError(text)
    return value


FORMATS = {
    "sample": (".png", ".gif", ".npz"),
    "reconstruct": (".png", ".npz"),
    "encode": (".npz", ".csv"),
    "interpolate": (".png", ".gif", ".npz"),
    "traverse": (".png", ".gif", ".npz"),
    "lattice": (".png", ".npz"),
    "export": (".onnx", ".pt"),
}


def _output(options: argparse.Namespace) -> Path:
    """Where to write, which is possible in the verb's formats and does not overwrite anything unasked."""
    formats = FORMATS[options.verb]
    output: Path = options.output or Path(options.verb + formats[0])
    if output.suffix not in formats:
        raise UsageError(f"-o {output}: the ending must be one of {' '.join(formats)}")
    for file in _files(output, options.verb):
        if file.exists() and not options.force:
            raise UsageError(f"{file} is there already; --force writes over it, -o names another file")
        if not file.parent.is_dir():
            raise UsageError(f"-o {output}: there is no folder {file.parent}")
    return output


def _files(output: Path, verb: str) -> list[Path]:
    if verb == "export" and output.suffix == ".onnx":
        return [output.with_name(f"{output.stem}-{part}.onnx") for part in ("encoder", "decoder")]
    return [output]


def _sample(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import torch

    from .image_files import pixels, write_images

    torch.manual_seed(options.seed)
    parts = []
    for count in _counted(options.count):
        z = options.temperature * run.model.prior.distribution().sample((count,))
        parts.append(pixels(run.model.decode(z).mean))
    _say(output, write_images(torch.cat(parts), output))


def _reconstruct(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import numpy as np
    import torch

    from .image_files import pixels, write_images

    images, _, _ = _images(run, options)
    made = torch.cat([pixels(run.model.reconstruct(part.to(run.model.device))) for part in _split(images)])
    if output.suffix == ".npz":
        np.savez_compressed(output, images=pixels(images).numpy(), reconstructions=made.numpy())
        _say(output, f"{len(images)} images and their reconstructions")
        return
    rows = zip(pixels(images).split(10), made.split(10), strict=True)
    pairs = [torch.cat([_filled(row, 10 if len(images) > 10 else len(row)) for row in pair]) for pair in rows]
    _say(
        output,
        write_images(torch.cat(pairs), output, columns=min(10, len(images)), what="images above their reconstructions"),
    )


def _encode(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import numpy as np
    import torch

    images, names, classes = _images(run, options)
    posteriors = [run.model.encode(part.to(run.model.device)) for part in _split(images)]
    means = torch.cat([posterior.mean for posterior in posteriors]).cpu().numpy()
    deviations = torch.cat([posterior.stddev for posterior in posteriors]).cpu().numpy()
    if output.suffix == ".npz":
        np.savez_compressed(output, means=means, stddevs=deviations, names=np.array(names), classes=np.array(classes))
    else:
        dimensions = range(1, means.shape[1] + 1)
        with output.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(
                ["image", "class", *(f"mean_{i}" for i in dimensions), *(f"stddev_{i}" for i in dimensions)]
            )
            for name, label, mean, deviation in zip(names, classes, means, deviations, strict=True):
                writer.writerow([plain_cell(name), plain_cell(label), *mean, *deviation])
    _say(output, f"codes of {len(images)} images")


def _interpolate(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import torch

    from .image_files import pixels, write_images

    ends = torch.cat([_image(run, end, options) for end in (options.start, options.end)]).to(run.model.device)
    start, end = run.model.encode(ends).mean
    shares = torch.linspace(0, 1, options.steps, device=start.device).unsqueeze(1)
    codes = _great_circle(start, end, shares) if options.spherical else torch.lerp(start, end, shares)
    pictures = torch.cat([pixels(run.model.decode(part).mean) for part in _split(codes)])
    _say(output, write_images(pictures, output, columns=len(pictures), what="pictures from one code to the other"))


def _great_circle(start: "Tensor", end: "Tensor", shares: "Tensor") -> "Tensor":
    """Points `(steps, D)` that turn evenly from one code `(D,)` to another, their length changing evenly as well.

    Source: Shoemake (1985), https://doi.org/10.1145/325165.325242.
    """
    import torch

    lengths = torch.lerp(start.norm(), end.norm(), shares)
    one, other = start / start.norm().clamp(min=1e-12), end / end.norm().clamp(min=1e-12)
    angle = (one @ other).clamp(-1, 1).acos()
    if angle.sin().abs() < 1e-6:  # on one line: there is no single great circle
        return torch.lerp(start, end, shares)
    return lengths * (((1 - shares) * angle).sin() * one + (shares * angle).sin() * other) / angle.sin()


def _traverse(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import torch

    from ..evaluation.codes import traverse
    from .image_files import pixels, write_gif, write_images

    latent_dim = run.model.latent_dim
    chosen = _dimensions(options.dimensions, latent_dim) if options.dimensions else _most_used(run)
    code = torch.zeros(latent_dim)
    if options.image is not None:
        code = run.model.encode(_image(run, options.image, options).to(run.model.device)).mean[0].cpu()
    values = torch.linspace(-options.extent, options.extent, options.steps)
    codes = traverse(code, torch.tensor(chosen), values)
    rows = torch.stack([pixels(run.model.decode(row.to(run.model.device)).mean) for row in codes])
    what = (
        f"pictures: dimensions {', '.join(str(i + 1) for i in chosen)} from {-options.extent:g} to {options.extent:g}"
    )
    if output.suffix == ".gif":
        from ..plots import tile

        columns = math.ceil(len(chosen) ** 0.5)
        frames = torch.stack([pixels(tile(frame / 255, columns)) for frame in rows.transpose(0, 1)])
        _say(output, write_gif(frames, output, what))
    else:
        _say(output, write_images(rows.flatten(0, 1), output, columns=options.steps, what=what))


def _dimensions(text: str, latent_dim: int) -> list[int]:
    try:
        chosen = [int(part) - 1 for part in text.split(",")]
    except ValueError:
        chosen = [-1]
    if not all(0 <= dimension < latent_dim for dimension in chosen):
        raise UsageError(f"--dimensions {text}: must be whole numbers from 1 to {latent_dim}, as in 1,2")
    return chosen


def _most_used(run: "LoadedRun") -> list[int]:
    """By the rates that were measured at the end of the training; in order, where there are none."""
    import numpy as np

    try:
        with np.load(run.run.arrays_file, allow_pickle=False) as arrays:
            rates = arrays["rates"]
        if rates.shape == (run.model.latent_dim,):
            return np.argsort(-rates)[:10].tolist()
    except (OSError, ValueError, KeyError):
        pass
    return list(range(min(10, run.model.latent_dim)))


def _lattice(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import torch

    from ..evaluation.codes import normal_lattice, square_lattice
    from .image_files import pixels, write_images

    dimension = run.model.latent_dim
    if dimension > 2:
        raise UsageError(f"{run.name} has latent dimension {dimension}, and a lattice 1 or 2; see traverse")
    codes = normal_lattice(options.cells) if options.quantiles else square_lattice(options.extent, options.cells)
    codes = codes[:1, :, :1] if dimension == 1 else codes
    rows = [pixels(run.model.decode(row.to(run.model.device)).mean) for row in codes]
    _say(
        output,
        write_images(torch.cat(rows), output, columns=options.cells, what="decoded codes; the second dimension rises"),
    )


def _export(run: "LoadedRun", options: argparse.Namespace, output: Path) -> None:
    import torch

    if output.suffix == ".pt":
        torch.save(run.model.state_dict(), output)
        _say(output, "a state dict of tensors: torch.load(…, weights_only=True)")
        return
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX files need {error.name}: pip install 'vae-lightning[export]'") from error
    model = run.model.cpu()
    torch.manual_seed(options.seed)
    encoder, decoder = _files(output, "export")
    for file, module, example, names in [
        (encoder, _encoder(model), torch.rand(2, *run.image_shape), ("images", ["mean", "stddev"])),
        (decoder, _decoder(model), torch.randn(2, model.latent_dim), ("codes", ["images"])),
    ]:
        torch.onnx.export(
            module, (example,), file, input_names=[names[0]], output_names=names[1], dynamo=True, verbose=False,
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False,
        )  # fmt: skip
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        worst = 0.0
        for batch in (1, 7):  # other sizes than the example's
            given = example[:1].expand(batch, *example.shape[1:]).contiguous()
            expected = module(given)
            found = session.run(None, {names[0]: given.numpy()})
            for one, other in zip(found, expected, strict=True):
                worst = max(worst, (torch.from_numpy(one) - other).abs().max().item())
        if worst > 1e-3:
            file.unlink()
            raise UsageError(f"{file}: differs from PyTorch by {worst:.1g}, and is not kept")
        _say(file, f"{names[0]} to {' and '.join(names[1])}; differs from PyTorch by at most {worst:.0e}")


def _encoder(model: Any) -> Any:
    from torch import nn

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = model.encoder

        def forward(self, images: "Tensor") -> "tuple[Tensor, ...]":
            posterior = self.encoder(images)
            return posterior.mean, posterior.stddev

    return Encoder().eval()


def _decoder(model: Any) -> Any:
    from torch import nn

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.decoder, self.likelihood = model.decoder, model.likelihood

        def forward(self, codes: "Tensor") -> "tuple[Tensor, ...]":
            return (self.likelihood(self.decoder(codes)).mean,)

    return Decoder().eval()


VERBS: dict[str, Callable[["LoadedRun", argparse.Namespace, Path], None]] = {
    "sample": _sample,
    "reconstruct": _reconstruct,
    "encode": _encode,
    "interpolate": _interpolate,
    "traverse": _traverse,
    "lattice": _lattice,
    "export": _export,
}


def _counted(total: int) -> Iterator[int]:
    """A total in parts, with a progress bar where there are several."""
    from tqdm import tqdm

    parts = [min(AT_ONCE, total - start) for start in range(0, total, AT_ONCE)]
    yield from tqdm(parts, unit="part", disable=None if len(parts) > 1 else True)


def _split(tensor: "Tensor") -> Iterator["Tensor"]:
    start = 0
    for count in _counted(len(tensor)):
        yield tensor[start : start + count]
        start += count


def _images(run: "LoadedRun", options: argparse.Namespace) -> "tuple[Tensor, list[str], list[str]]":
    """Images `(N, C, H, W)`, their names and classes: the files that were named, or test images."""
    import torch

    from .image_files import read_image

    if options.images:
        images = torch.cat([read_image(path, run.image_shape) for path in options.images])
        return images, [str(path) for path in options.images], ["" for _ in options.images]
    images, labels = _test_images(run, options.test, options)
    classes = [str(run.data.class_names[label]) for label in labels.tolist()]
    return images, [f"test {number}" for number in range(len(images))], classes


def _test_images(run: "LoadedRun", count: int, options: argparse.Namespace) -> "tuple[Tensor, Tensor]":
    if options.data_root:
        run.config["data"]["root"] = options.data_root
    return run.test_images(count)


def _image(run: "LoadedRun", name: str, options: argparse.Namespace) -> "Tensor":
    """An image `(1, C, H, W)`: a file, or the number of a test image."""
    from .image_files import read_image

    if not name.isdigit() or Path(name).exists():
        return read_image(Path(name), run.image_shape)
    images, _ = _test_images(run, 2**31, options)
    if int(name) >= len(images):
        raise UsageError(f"{name}: there are {len(images)} test images, from 0 to {len(images) - 1}")
    return images[int(name)][None]


def _filled(images: "Tensor", count: int) -> "Tensor":
    """With black images, up to a number."""
    import torch

    return torch.cat([images, images.new_zeros(count - len(images), *images.shape[1:])])


def _say(file: Path, what: str) -> None:
    print(f"{file}: {what}")


if __name__ == "__main__":
    main()
