"""A model for use without this package: encoder and decoder as ONNX files, or the weights as a plain state dict."""

import argparse
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..conditioning import is_conditional
from ..errors import UsageError, first_line
from ..posteriors import point, spread
from ..runs.loading import LoadedRun

if TYPE_CHECKING:
    from ..vae import VAE

__all__ = ["Decoder", "Encoder", "export_onnx", "write_models"]

TOLERANCE = 1e-3  # largest difference from PyTorch with which an ONNX file is kept


class Encoder(nn.Module):
    """From images `(B, C, H, W)`, and labels `(B,)` where the encoder is conditional, to codes `(B, latent_dim)`.

    Args:
        model: whose encoder it is.
        with_spread: whether the posteriors' standard deviations `(B, latent_dim)` are returned as well.
    """

    def __init__(self, model: "VAE", with_spread: bool = True) -> None:
        super().__init__()
        self.model = model
        self.with_spread = with_spread

    def forward(self, images: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        posterior = self.model.encode(images, labels)
        return (point(posterior), spread(posterior)) if self.with_spread else (point(posterior),)


class Decoder(nn.Module):
    """From codes `(B, latent_dim)`, and labels `(B,)` where the decoder is conditional, to images `(B, C, H, W)`.

    Args:
        model: whose decoder it is.
    """

    def __init__(self, model: "VAE") -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: Tensor, labels: Tensor | None = None) -> tuple[Tensor, ...]:
        return (self.model.decode(codes, labels).mean,)


class _ExportError(Exception):
    """PyTorch cannot export a module, or its ONNX file computes something else; the message says which."""


def write_models(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Writes the state dict, or two ONNX files; returns what was written, by file."""
    if output.suffix == ".pt":
        torch.save(run.model.state_dict(), output)
        return {output: "a state dict of tensors: torch.load(…, weights_only=True)"}
    torch.manual_seed(options.seed)
    encoder, decoder = (output.with_name(f"{output.stem}-{part}.onnx") for part in ("encoder", "decoder"))
    return export_onnx(run.model.cpu(), run.image_shape, encoder, decoder)


def export_onnx(model: "VAE", image_shape: tuple[int, ...], encoder: Path, decoder: Path) -> dict[Path, str]:
    """Writes a model's encoder and decoder as ONNX files for any batch size, and checks them against PyTorch.

    A posterior whose standard deviations cannot be exported, as when they are those of samples, is exported without
    them.

    Args:
        model: on the CPU, in evaluation mode.
        image_shape: `(C, H, W)`.
        encoder: file with the inputs images and, if it is conditional, labels; outputs mean and stddev.
        decoder: file with the inputs codes and, if it is conditional, labels; output images.

    Returns:
        What was written, by file.

    Raises:
        UsageError: if a package is missing, or the model cannot be exported.
    """
    _check_packages()
    images, codes = torch.rand(2, *image_shape), torch.randn(2, model.latent_dim)
    try:
        try:
            said = _export(encoder, Encoder(model), _inputs("images", images, model.encoder), ["mean", "stddev"])
        except _ExportError as error:
            said = _export(encoder, Encoder(model, False), _inputs("images", images, model.encoder), ["mean"])
            said += f"; without stddev, which cannot be exported: {error}"
        return {
            encoder: said,
            decoder: _export(decoder, Decoder(model), _inputs("codes", codes, model.decoder), ["images"]),
        }
    except _ExportError as error:
        for file in (encoder, decoder):
            file.unlink(missing_ok=True)
        raise UsageError(f"this model cannot be exported as ONNX: {error}") from error


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UsageError(f"ONNX files need {error.name}: pip install 'vae-lightning[export]'") from error


def _inputs(name: str, example: Tensor, part: nn.Module) -> dict[str, Tensor]:
    """Examples of a network's inputs, by name."""
    labels = {"labels": torch.zeros(len(example), dtype=torch.long)} if is_conditional(part) else {}
    return {name: example, **labels}


def _export(file: Path, module: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> str:
    """Writes one ONNX file; returns what it contains."""
    batch = torch.export.Dim("batch")
    try:
        with _without_validation(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)  # images and labels share it
            torch.onnx.export(
                module.eval(), tuple(inputs.values()), file, input_names=list(inputs), output_names=outputs,
                dynamo=True, verbose=False, dynamic_shapes=tuple({0: batch} for _ in inputs), external_data=False,
            )  # fmt: skip
        worst = _largest_difference(file, module, inputs)
    except Exception as error:  # the exporter and the runtime raise many kinds, and so does the model's own code
        while error.__cause__:
            error = error.__cause__  # type: ignore[assignment]
        reason = first_line(error)[:160]
        raise _ExportError(f"{file.name}: {reason}") from error
    if not worst <= TOLERANCE:
        raise _ExportError(f"{file.name} differs from PyTorch by {worst:.1g}")
    return f"{' and '.join(inputs)} to {' and '.join(outputs)}; differs from PyTorch by at most {worst:.0e}"


@contextmanager
def _without_validation() -> Iterator[None]:
    """Makes distributions that do not check their arguments: such a check depends on values and has no ONNX."""
    before = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    try:
        yield
    finally:
        Distribution.set_default_validate_args(before)


def _largest_difference(file: Path, module: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Between an ONNX file's outputs and PyTorch's, for other batch sizes than the example's."""
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    worst = 0.0
    for size in (1, 7):
        given = {name: value[:1].expand(size, *value.shape[1:]).contiguous() for name, value in inputs.items()}
        with torch.no_grad():
            expected = module(*given.values())
        found = session.run(None, {name: value.numpy() for name, value in given.items()})
        differences = [(torch.from_numpy(a) - b).abs().max().item() for a, b in zip(found, expected, strict=True)]
        worst = max(worst, *differences)
    return worst
