"""What is measured at the end of a run: there, right, and without a trace on the training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, compose_config
from pytorch_lightning import seed_everything

from vae_lightning.callbacks.measurements import Reference, reference
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.evaluation.bounds import importance_weighted_bound
from vae_lightning.report.claims import chapter_claims
from vae_lightning.report.metrics import METRICS
from vae_lightning.runs import NEEDED, Run
from vae_lightning.train import build


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


@pytest.mark.parametrize("latent_dim", [1, 2, 5])
def test_every_figure_is_described_and_in_its_range(tmp_path: Path, latent_dim: int) -> None:
    _, metrics, _ = trained(tmp_path, f"model.latent_dim={latent_dim}")
    assert set(metrics) <= set(METRICS)
    shares = [
        name for name in metrics if any(word in name for word in ("accuracy", "trustworth", "continuity", "uneven"))
    ]
    assert len(shares) >= 9
    assert all(0 <= metrics[name] <= 1 for name in shares)
    assert 0 <= metrics["test/active_units"] <= latent_dim
    assert metrics["test/iw_bound"] > metrics["test/elbo"] - 4 * metrics["test/iw_bound_stderr"]
    assert metrics["test/distortion_above_floor"] < metrics["test/distortion"]
    assert ("test/trustworthiness_tsne" in metrics) == (latent_dim > 2)
    if latent_dim == 2:
        assert metrics["test/trustworthiness"] == metrics["test/continuity"] == 1


def test_each_can_be_left_out(tmp_path: Path) -> None:
    sizes = [
        f"callbacks.measurements.{name}=0"
        for name in ("bound_samples", "probe_images", "quality_images", "plane_points")
    ]
    _, metrics, _ = trained(tmp_path, *sizes)
    left = {name.removeprefix("test/") for name in metrics}
    assert left == {
        "loss", "elbo", "distortion", "rate", "distortion_above_floor", "mse", "active_units", "posterior_mean_gap",
        "posterior_covariance_gap",
    }  # fmt: skip


def test_the_bound_is_that_of_all_test_images(tmp_path: Path) -> None:
    weights, metrics, data = trained(tmp_path, "callbacks.measurements.bound_samples=200")
    config = compose_config(*TINY)
    config.run_dir = str(tmp_path)
    model, *_ = build(config)
    model.load_state_dict(weights)
    images, _ = data.examples("test", 1000)
    assert len(images) == 40
    bound = importance_weighted_bound(model.eval(), images, 200)
    assert metrics["test/iw_bound"] == pytest.approx(bound.mean().item(), abs=0.3)
    assert metrics["test/iw_bound_stderr"] == pytest.approx(bound.std().item() / 40**0.5, rel=0.05)


def test_bits_per_dimension_where_grey_levels_have_probabilities(tmp_path: Path) -> None:
    _, metrics, _ = trained(tmp_path, "model/likelihood=discretized_logistic")
    assert metrics["test/bits_per_dim"] == pytest.approx(-metrics["test/elbo"] / (784 * np.log(2)))
    assert "test/distortion_above_floor" not in metrics


class TestReference:
    """The classifier of a data set is made once, and kept by the images' digest."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> ImageDataModule:
        config = compose_config(*TINY)
        config.run_dir = str(tmp_path)
        data = build(config)[1]
        data.setup()
        return data

    def test_is_read_the_second_time(self, data: ImageDataModule, tmp_path: Path) -> None:
        first = self.make(data, tmp_path)
        (file,) = tmp_path.glob("*.pt")
        written = file.stat().st_mtime_ns
        second = self.make(data, tmp_path)
        assert file.stat().st_mtime_ns == written
        assert first.metrics == second.metrics
        images = torch.rand(4, 1, 28, 28)
        assert torch.equal(first.classifier.features(images), second.classifier.features(images))
        data.splits["train"].images[0, 0, 0, 0] += 1
        self.make(data, tmp_path)
        assert len(list(tmp_path.glob("*.pt"))) == 2

    @pytest.mark.parametrize("content", [b"", b"not a file of PyTorch's"])
    def test_is_made_again_if_it_is_damaged(self, data: ImageDataModule, tmp_path: Path, content: bytes) -> None:
        first = self.make(data, tmp_path)
        (file,) = tmp_path.glob("*.pt")
        file.write_bytes(content)
        assert self.make(data, tmp_path).metrics == first.metrics
        assert len(file.read_bytes()) > 1000

    def test_does_without_a_folder(self, data: ImageDataModule, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.make(data, tmp_path / "file" / "cache").metrics == self.make(data, tmp_path).metrics

    def make(self, data: ImageDataModule, folder: Path) -> Reference:
        torch.manual_seed(1)
        return reference(data, torch.device("cpu"), 5000, str(folder))


def runs(folder: Path, **groups: list[dict[str, float]]) -> list[Run]:
    """Finished runs with metrics: a list, over seeds, for each latent dimension `d<number>`."""
    found = []
    for name, metrics in groups.items():
        for seed, values in enumerate(metrics):
            run = Run(folder / f"{name}-{seed}")
            run.folder.mkdir()
            content = {f"test/{key}": value for key, value in values.items()} | {"latent_dim": int(name[1:])}
            content = dict.fromkeys(NEEDED, 1.0) | content
            run.metrics_file.write_text(json.dumps(content))
            found.append(run)
    return found


def test_claims_are_held_against_measurements(tmp_path: Path) -> None:
    common = {"knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1, "frechet_floor": 1.0}
    small = [
        common | {"frechet_samples": 50 + seed, "knn_accuracy": 0.6 + seed / 100, "path_unevenness": 0.1 + seed / 100}
        for seed in range(3)
    ]
    large = [
        common | {"frechet_samples": 20 + seed, "knn_accuracy": 0.8, "knn_accuracy_plane": 0.3 + seed / 100}
        for seed in range(3)
    ]
    keys = ["model.latent_dim", "seed"]
    claims = chapter_claims(runs(tmp_path, d2=small, d128=large), keys)
    assert [claim.holds for claim in claims] == [True] * 4
    assert "51.0 ± 1.0 at d = 2, 21.0 ± 1.0 at d = 128; of real images 1.0; p = " in claims[0].measurement
    assert "61.0 ± 1.0 %" in claims[1].measurement
    assert "80.0 ± 0.0 % of the test images among the codes, of 31.0 ± 1.0 %" in claims[2].measurement
    assert "11.0 ± 1.0 %" in claims[3].measurement
    assert "more than halfway from chance to what pixels tell, 50.0 %" in claims[1].criterion


def test_claims_that_measurements_do_not_bear_out(tmp_path: Path) -> None:
    common = {"knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1}
    small = [
        common | {"frechet_samples": 30 + 10 * seed, "knn_accuracy": 0.3 + seed / 10, "path_unevenness": 0.4}
        for seed in range(3)
    ]
    large = [
        common | {"frechet_samples": 25 + 10 * seed, "knn_accuracy": 0.8, "knn_accuracy_plane": 0.8 + (seed - 1) / 100}
        for seed in range(3)
    ]
    assert [claim.holds for claim in chapter_claims(runs(tmp_path, d2=small, d8=large), ["model.latent_dim"])] == [
        False
    ] * 4


def test_claims_need_seeds_and_nothing_else_that_differs(tmp_path: Path) -> None:
    values = {"frechet_samples": 3.0, "knn_accuracy": 0.5, "knn_accuracy_pixels": 0.9, "chance_accuracy": 0.1}
    found = runs(tmp_path, d2=[values], d8=[values | {"knn_accuracy_plane": 0.2}])
    assert {claim.holds for claim in chapter_claims(found, ["model.latent_dim"])} == {None}
    assert chapter_claims(found, ["model.latent_dim", "model"]) == []
    assert chapter_claims(found, ["seed"]) == []
    (tmp_path / "bare").mkdir()
    assert chapter_claims(runs(tmp_path / "bare", d2=[{}], d8=[{}]), ["model.latent_dim"]) == []
