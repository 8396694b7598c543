"""Figures of the tested model."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from .. import plots
from ..metrics.codes import Codes, decode_all, encode_all
from ..metrics.disentanglement import Factored, known_shares, varying
from ..progress import Progress
from ..vae import VAE
from .drawing import drawing, model_of, run_of, save_figure, tested_batches
from .measurements import Measurements

__all__ = ["FinalFigures"]

MOST_CLASSES = 20  # with a row of their own
FACTOR_IMAGES = 2000  # that tell which factors a dimension knows
SUBSCRIPT = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
LEAST_KNOWN = 0.1  # of a factor, for a dimension to be named after it


class FinalFigures(Callback):
    """Draws the tested model's codes, latent space, reconstructions and samples.

    The arrays that the comparison of a sweep draws again go to `figures/figures.npz`: `points` `(N, 1)` or `(N, 2)`,
    the test images' posterior means or their two principal components; `exact`, whether these are the codes' own
    coordinates; `explained` `(2,)`, the fraction of the variance along each; `rates` `(latent_dim,)`; `labels` `(N,)`
    and `class_names` if the data have them; as uint8, `originals`, `reconstructions` and `samples` `(M, C, H, W)`; and
    the arrays of `Measurements`.

    Args:
        scatter_limit: half the width of the scatter's axes for latent dimension 2; null for the data's own extent.
        lattice_extent: half the width of the chapter's lattice.
        lattice_cells: codes along each side of it.
        quantile_cells: codes along each side of the lattice at normal quantiles.
        reconstructions: number of test images shown with their reconstructions, from the first test batch.
        samples: number of samples from the prior.
        class_samples: samples of each class, for a conditional model.
        traversed: number of most used dimensions to traverse, for latent dimensions above 2; and of samples that share
            a part of their code, for priors that have parts.
    """

    def __init__(
        self,
        scatter_limit: float | None = 4.0,
        lattice_extent: float = 8.0,
        lattice_cells: int = 8,
        quantile_cells: int = 20,
        reconstructions: int = 20,
        samples: int = 100,
        traversed: int = 10,
        class_samples: int = 10,
    ) -> None:
        self.scatter_limit = scatter_limit
        self.lattice_extent = lattice_extent
        self.lattice_cells = lattice_cells
        self.quantile_cells = quantile_cells
        self.reconstructions = reconstructions
        self.samples = samples
        self.traversed = traversed
        self.class_samples = class_samples

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        model = model_of(pl_module)
        with Progress(trainer, "drew").step("figures"), drawing(model), plots.style():
            torch.manual_seed(0)
            for name, figure in self._figures(trainer, model):
                save_figure(trainer, name, figure)

    def _figures(self, trainer: Trainer, model: VAE) -> Iterator[tuple[str, Figure]]:
        data = trainer.datamodule  # type: ignore[attr-defined]
        subject = f"{data.name}, latent dimension {model.latent_dim}"

        codes = encode_all(model, tested_batches(trainer))
        images, labels = next(tested_batches(trainer))
        originals = images[: self.reconstructions]
        labels = None if labels is None else labels[: self.reconstructions]
        reconstructed, samples = model.reconstruct(originals, labels), model.sample(self.samples)
        pairs = {"image": originals, "reconstruction": reconstructed}
        yield "reconstructions", plots.pairs(pairs, f"Test images: {subject}")
        columns = math.ceil(self.samples**0.5)
        yield "samples", plots.tiles(samples, columns, f"Samples from the prior: {subject}")
        if model.conditional and data.class_names:
            yield "samples by class", self._by_class(model, data.class_names, subject)

        chart = model.latent_space.chart(codes.points)
        points = chart.coordinates[:, :1] if model.latent_space.axes == 1 else chart.coordinates
        title = f"Posterior means of the test images: {subject}"
        if not chart.exact:
            title += f"\n{chart.explained.sum():.0%} of their variance lies in this plane"
        limit = self.scatter_limit if model.latent_space.axes == 2 and model.latent_space.unbounded else None
        scatter = plots.latent_scatter(points, codes.labels, data.class_names, title, chart.names, limit)
        yield "latent means", scatter
        yield from self._decoded(model, codes, subject, images.shape[1:], _factors_known(data, codes.points))

        pictures = {"originals": originals, "reconstructions": reconstructed, "samples": samples}
        arrays: dict[str, Any] = {name: plots.grey_values(images).numpy() for name, images in pictures.items()}
        if codes.labels is not None:
            arrays |= {"labels": codes.labels.numpy(), "class_names": np.array(data.class_names)}
        arrays |= {
            "points": points.float().numpy(),
            "explained": chart.explained.numpy() if not chart.exact else np.ones(2, np.float32),
            "exact": np.array(chart.exact),
            "rates": codes.rates.numpy(),
        }
        measured = _measured(trainer)
        if "copied_samples" in measured:
            yield "nearest training images", _copies(measured, subject)
        if len(measured.get("bound_samples", ())) > 1:
            yield (
                "bound",
                plots.bound(
                    measured["bound_samples"],
                    measured["bound"],
                    measured["bound_gap_stderr"],
                    f"Importance-weighted bound: {subject}",
                ),
            )
        arrays |= {name: array.numpy() for name, array in measured.items()}
        np.savez_compressed(run_of(trainer).arrays_file, **arrays)

    def _by_class(self, model: VAE, class_names: Sequence[str], subject: str) -> Figure:
        """A row for each class, of many of some, and a column for each draw of the prior's noise."""
        shown = plots.evenly_spaced(range(len(class_names)), MOST_CLASSES)
        rows = []
        for label in shown:
            torch.manual_seed(0)
            rows.append(model.sample(self.class_samples, torch.full((self.class_samples,), label, device=model.device)))
        title = f"Samples of each class, the same noise in each column: {subject}"
        return plots.traversals(torch.stack(rows), [class_names[label] for label in shown], (), title)

    def _decoded(
        self, model: VAE, codes: Codes, subject: str, image_shape: Sequence[int], factors: Sequence[str]
    ) -> Iterator[tuple[str, Figure]]:
        """Yields lattices of a space of two dimensions, or traversals of one with more, and variations of samples."""
        space = model.latent_space
        if space.axes == 2:
            for name, lattice in [
                ("lattice", space.lattice(self.lattice_cells, self.lattice_extent if space.unbounded else None)),
                ("lattice of quantiles", space.quantiles(self.quantile_cells)),
            ]:
                decoded = decode_all(model, lattice.codes.to(model.device), image_shape)
                yield name, plots.lattice(decoded, lattice.coordinates, f"Decoded {name}: {subject}", lattice.names)
        elif space.axes == 0:
            # Without rates per dimension, the dimensions keep their order.
            known = len(codes.rates) == model.latent_dim
            used = codes.rates.argsort(descending=True) if known else torch.arange(model.latent_dim)
            used = used[: self.traversed]
            values = torch.linspace(-3, 3, 11)
            traversed = space.traverse(codes.points[0], used, values).to(model.device)
            count = len(used) * len(values)
            labels = None if codes.labels is None else codes.labels[:1].to(model.device).expand(count)
            decoded = decode_all(model, traversed, image_shape, labels)
            rows = [
                f"z{j + 1}".translate(SUBSCRIPT) + (f", {codes.rates[j]:.1f} nats" if known else "")
                for j in used.tolist()
            ]
            title = f"The most used dimensions, traversed from the first test image: {subject}"
            if factors:
                rows = [
                    f"{row}\n{factors[j]}" if factors[j] else row for row, j in zip(rows, used.tolist(), strict=True)
                ]
                title += "\nand the factor of which each knows most, with the share that it knows"
            yield "traversals", plots.traversals(decoded, rows, values.tolist(), title)
        if variations := model.prior.variations(self.traversed):
            decoded = decode_all(model, torch.stack([*variations.values()]), image_shape)
            title = f"Samples from the prior that share a part of their code: {subject}"
            yield "variations", plots.traversals(decoded, [*variations], (), title)


def _copies(measured: Mapping[str, Tensor], subject: str) -> Figure:
    """Samples above their nearest training images."""
    rows = {"sample": measured["copied_samples"], "training image": measured["copied_images"]}
    title = f"Samples above the nearest training images: {subject}"
    title += "\nFrom the nearest to the farthest, by pixels; a distance of 1 is the median of test images"
    return plots.pairs(rows, title, [f"{distance:.2f}" for distance in measured["copied_distances"].tolist()])


def _measured(trainer: Trainer) -> dict[str, Tensor]:
    """The arrays of what was measured in this test."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.arrays for callback in callbacks if isinstance(callback, Measurements)), {})


def _factors_known(data: Any, points: Tensor) -> list[str]:
    """The factor of which each dimension of the test images' codes knows most, as text; empty if none are known."""
    points = points[:FACTOR_IMAGES].flatten(1)
    names = getattr(data, "factor_names", ())
    factors = data.factors("test", torch.arange(len(points))) if names else None
    if factors is None or not varying(factors):
        return []
    shares = known_shares(Factored(points, factors, [name in data.categorical_factors for name in names])).max(1)
    return [
        f"{names[k]} {share:.0%}" if share > LEAST_KNOWN else ""
        for share, k in zip(shares.values.tolist(), shares.indices.tolist(), strict=True)
    ]
