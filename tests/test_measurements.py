"""What is measured at the end of a run: there, right, and without a trace on the training."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from pytorch_lightning import LightningDataModule, Trainer, seed_everything
from shared import TINY, compose_config
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    Normal,
)

from vae_lightning.building import build
from vae_lightning.callbacks.measurements import Measurements
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.sources import Split
from vae_lightning.metrics.bounds import importance_weighted_bound
from vae_lightning.report.metrics import METRICS
from vae_lightning.vae import VAE


def trained(folder: Path, *overrides: str) -> tuple[dict[str, torch.Tensor], dict[str, float], ImageDataModule]:
    """A training's weights, its test metrics and its data."""
    config = compose_config(*TINY, "logger=none", *overrides)
    config.run_dir = str(folder)
    seed_everything(0, verbose=False)
    model, data, trainer, _ = build(config)
    trainer.fit(model, datamodule=data)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return model.state_dict(), metrics, data


def test_measuring_changes_nothing(tmp_path: Path) -> None:
    plain, few, _ = trained(tmp_path / "plain", "~callbacks.measurements")
    measured, many, _ = trained(tmp_path / "measured")
    assert all(torch.equal(value, measured[name]) for name, value in plain.items())
    assert {name: many[name] for name in few} == few
    assert len(many) > len(few) + 20


@pytest.mark.parametrize("latent_dim", [*(pytest.param(size, marks=pytest.mark.slow) for size in (1, 2)), 5])
def test_every_figure_is_described_and_in_its_range(tmp_path: Path, latent_dim: int) -> None:
    _, metrics, _ = trained(tmp_path, f"model.latent_dim={latent_dim}", "callbacks.measurements.tsne=true")
    assert set(metrics) <= set(METRICS)
    shares = [
        name for name in metrics if any(word in name for word in ("accuracy", "trustworth", "continuity", "uneven"))
    ]
    assert len(shares) >= 9
    assert all(0 <= metrics[name] <= 1 for name in shares)
    assert 0 <= metrics["test/active_units"] <= latent_dim
    assert metrics["test/iw_bound"] > metrics["test/elbo"] - 4 * metrics["test/iw_bound_stderr"]
    assert metrics["test/iw_bound_rise"] > 0
    assert 1 / 3 <= metrics["test/effective_sample_share"] <= 1
    assert metrics["test/distortion_above_floor"] < metrics["test/distortion"]
    assert ("test/halfway_distance_lattice" in metrics) == (latent_dim == 2)
    assert ("test/trustworthiness_tsne" in metrics) == (latent_dim > 2)
    if latent_dim == 2:
        assert metrics["test/trustworthiness"] == metrics["test/continuity"] == 1


def test_each_can_be_left_out(tmp_path: Path) -> None:
    sizes = [
        f"callbacks.measurements.{name}=0"
        for name in (
            *("bound_samples", "rate_images", "probe_images", "quality_images", "factor_images", "plane_points"),
            "copy_images",
        )
    ]
    _, metrics, _ = trained(tmp_path, *sizes)
    left = {name.removeprefix("test/") for name in metrics}
    assert left == {
        "loss", "elbo", "elbo_stderr", "distortion", "rate", "distortion_above_floor", "mse", "active_units",
        "posterior_mean_gap", "posterior_covariance_gap",
    }  # fmt: skip


@pytest.mark.slow
def test_the_bound_is_that_of_all_test_images(tmp_path: Path) -> None:
    weights, metrics, data = trained(tmp_path, "callbacks.measurements.bound_samples=200")
    config = compose_config(*TINY)
    config.run_dir = str(tmp_path)
    model, *_ = build(config)
    model.load_state_dict(weights)
    batch = data.examples("test", 1000)
    assert len(batch.images) == 40
    bound = importance_weighted_bound(model.eval(), batch, 200)
    assert metrics["test/iw_bound"] == pytest.approx(bound.mean().item(), abs=0.3)
    assert metrics["test/iw_bound_stderr"] == pytest.approx(bound.std().item() / 40**0.5, rel=0.05)


def test_no_metric_depends_on_which_others_are_measured() -> None:
    model, data = built("model.latent_dim=3")
    many, few = measured(model, data, bound_samples=7), measured(model, data, bound_samples=0, plane_points=0)
    drawn = {"loss", "elbo", "distortion", "rate", "distortion_above_floor"}  # before the measurements
    assert {name: many[name] for name in few.keys() - drawn} == {name: few[name] for name in few.keys() - drawn}
    assert {"frechet_samples", "kernel_floor", "halfway_distance_untrained"} < set(few)


@pytest.mark.slow
def test_bits_per_dimension_where_grey_levels_have_probabilities(tmp_path: Path) -> None:
    _, metrics, _ = trained(tmp_path, "model/likelihood=discretized_logistic")
    assert metrics["test/bits_per_dim"] == pytest.approx(-metrics["test/elbo"] / (784 * np.log(2)))
    assert "test/distortion_above_floor" not in metrics


BY_CLASS = {
    "knn_accuracy", "probe_accuracy", "knn_accuracy_plane", "classifier_accuracy", "chance_accuracy",
    "knn_accuracy_pixels", "probe_accuracy_pixels", "normalised_mutual_information", "silhouette",
    "normalised_mutual_information_pixels", "silhouette_pixels", "frechet_samples", "kernel_samples",
    "frechet_reconstructions", "kernel_reconstructions", "frechet_floor", "kernel_floor", "halfway_distance",
    "halfway_distance_crossfade", "halfway_distance_untrained", "precision", "recall", "density", "coverage",
    "precision_real", "recall_real", "density_real", "coverage_real",
}  # fmt: skip


def measured(model: VAE, data: LightningDataModule, **options: Any) -> dict[str, float]:
    """The test metrics of an untrained model."""
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    callback = Measurements(**{"bound_samples": 3, "factor_images": 0, "plane_points": 30} | options)
    trainer = Trainer(accelerator="cpu", callbacks=[callback], **quiet)
    (metrics,) = trainer.test(model, datamodule=data, verbose=False)
    return {name.removeprefix("test/"): value for name, value in metrics.items()}


def built(*overrides: str) -> tuple[VAE, ImageDataModule]:
    config = compose_config(*TINY, *overrides)
    torch.manual_seed(0)
    return instantiate(config.model, _convert_="all"), instantiate(config.data, _convert_="all")


def test_without_labels_the_rest_is_measured_and_one_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model, data = built("model.latent_dim=3")
    labelled = measured(model, data)
    _, data = built()
    source = data.source
    data.source = SimpleNamespace(
        class_names=(), prepare=source.prepare, load=lambda root, train: Split(source.load(root, train).images)
    )
    with caplog.at_level("INFO"):
        unlabelled = measured(model, data)
    assert data.class_names == ()
    assert set(labelled) - set(unlabelled) == BY_CLASS
    lines = [record.getMessage() for record in caplog.records if "labels" in record.getMessage()]
    assert lines == ["measured   no labels in glyphs: class accuracies and Fréchet distances are left out"]
    for name in (
        "mse",
        "iw_bound",
        "active_units",
        "trustworthiness",
        "trustworthiness_images_tsne",
        "path_unevenness",
    ):
        assert unlabelled[name] == labelled[name]


def poor(data: ImageDataModule, images: Callable[[Tensor], Tensor], labels: Callable[[Tensor], Tensor]) -> None:
    """Changes the images and labels that a data module's source gives."""
    source = data.source

    def load(root: Path, train: bool) -> Split:
        found = source.load(root, train)
        return Split(images(found.images), labels(found.labels))

    data.source = SimpleNamespace(class_names=(), prepare=source.prepare, load=load)


BY_FACTOR = {
    "mutual_information_gap", "separated_attribute_predictability", "disentanglement", "completeness",
    "informativeness", "modularity", "factor_vae_score", "beta_vae_score",
}  # fmt: skip


def test_codes_are_held_against_known_factors_where_there_are_any(caplog: pytest.LogCaptureFixture) -> None:
    sizes = {"bound_samples": 0, "probe_images": 0, "quality_images": 0, "plane_points": 0}
    model, data = built("data.source.test_size=120", "data.source.train_size=200")
    with caplog.at_level("INFO"):
        metrics = measured(model, data, **sizes, factor_images=100)
    assert set(metrics) >= BY_FACTOR
    assert all(0 <= metrics[name] <= 1 for name in BY_FACTOR)
    expected = "few images scores of disentanglement from 100 test images (rough below 1000)"
    assert lines_with("disentanglement", caplog) == [expected]
    assert not BY_FACTOR & set(measured(model, data, **sizes, factor_images=0))

    # A code that is three factors of an image, each by itself.
    train, test = (data.splits[name] for name in ("train", "test"))
    known = {
        image.numpy().tobytes(): f for part in (train, test) for image, f in zip(part.images, part.factors, strict=True)
    }

    class Knowing(nn.Module):
        def forward(self, x: Tensor) -> Distribution:
            rows = [known[(255 * image).round().byte().numpy().tobytes()] for image in x]
            return Independent(Normal(torch.stack(rows)[:, 1:3], 0.1), 1)

    model.encoder = Knowing()
    better = measured(model, data, **sizes, factor_images=200)
    assert better["separated_attribute_predictability"] > 0.2 > metrics["separated_attribute_predictability"]
    assert better["disentanglement"] > 2 * metrics["disentanglement"]


@pytest.mark.parametrize("columns", [0, 1])
def test_factors_that_are_not_there_are_not_measured(columns: int, caplog: pytest.LogCaptureFixture) -> None:
    model, data = built()
    source = data.source

    def load(root: Path, train: bool) -> Split:
        found = source.load(root, train)
        return found._replace(factors=found.factors[:, :1] if columns else None)

    data.source = SimpleNamespace(class_names=source.class_names, prepare=source.prepare, load=load)
    sizes = {"bound_samples": 0, "probe_images": 0, "quality_images": 0, "plane_points": 0}
    with caplog.at_level("INFO"):
        assert not BY_FACTOR & set(measured(model, data, **sizes, factor_images=100))
    line = "measured   fewer than two factors of glyphs vary: scores of disentanglement are left out"
    assert lines_with("disentanglement", caplog) == [line] * columns


def lines_with(word: str, caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


def test_one_class_tells_nothing_about_classes(caplog: pytest.LogCaptureFixture) -> None:
    model, data = built("model.latent_dim=3")
    poor(data, lambda images: images, torch.zeros_like)
    with caplog.at_level("INFO"):
        metrics = measured(model, data)
    assert not set(metrics) & BY_CLASS
    assert {"mse", "path_unevenness", "trustworthiness"} <= set(metrics)
    assert lines_with("left out", caplog) == [
        "measured   only one class among the training images of glyphs: class accuracies and Fréchet "
        "distances are left out"
    ]


@pytest.mark.slow
def test_a_classifier_at_chance_compares_nothing(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    model, data = built("model.latent_dim=3")
    poor(data, lambda images: torch.full_like(images, 100), lambda labels: torch.arange(len(labels)) % 3)
    with caplog.at_level("INFO"):
        metrics = measured(model, data, cache=str(tmp_path))
    assert metrics["classifier_accuracy"] == pytest.approx(1 / 3, abs=0.02)
    assert not [name for name in metrics if "frechet" in name or "kernel" in name or "halfway" in name]
    line, copies, same = lines_with("left out", caplog)
    assert copies == "measured   most test images are training images, too: distances of copies are left out"
    assert same == "measured   all test images have the same code: the faithfulness of plots is left out"
    assert line.startswith("measured   Fréchet and kernel distances are left out: the classifier")
    assert line.endswith("no better than chance, 0.350")


@pytest.mark.slow
def test_few_images_are_said(caplog: pytest.LogCaptureFixture) -> None:
    model, data = built("model.latent_dim=3")
    with caplog.at_level("INFO"):
        measured(model, data, plane_points=20)
    assert lines_with("few images", caplog) == [
        "few images parts of the rate from 40 test images (rough below 100), class accuracies from 40 test images "
        "(rough below 100), Fréchet and kernel distances from 40 test images (rough below 128), faithfulness of plots "
        "from 20 test images (rough below 25)"
    ]
    caplog.clear()
    _, data = built("data.source.test_size=130")
    with caplog.at_level("INFO"):
        measured(model, data)
    assert lines_with("few images", caplog) == []
