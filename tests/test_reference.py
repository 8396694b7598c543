"""A data set's own classifier: made once, kept, made again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from shared import TINY, compose_config
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor

from vae_lightning.building import build
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.images import StoredImages
from vae_lightning.metrics import quality
from vae_lightning.metrics.reference import Reference, reference


class TestReference:
    """The classifier of a data set is made once, and kept under the images' digest."""

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
        train = data.splits["train"]
        other = train.images.clone()
        other[0, 0, 0, 0] += 1
        data.splits["train"] = StoredImages(other, train.labels)
        self.make(data, tmp_path)
        assert len(list(tmp_path.glob("*.pt"))) == 2

    def test_of_pictures_whose_channels_come_last(
        self, data: ImageDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(quality, "train_classifier", untrained)
        for layout in (torch.contiguous_format, torch.channels_last):
            for name, split in data.splits.items():
                images = split.images[:, :1].expand(-1, 3, -1, -1).contiguous(memory_format=layout)
                data.splits[name] = StoredImages(images, split.labels)
            self.make(data, tmp_path)
        assert len(list(tmp_path.glob("*.pt"))) == 1

    @pytest.mark.parametrize("content", [b"", b"not a file of PyTorch's"])
    @pytest.mark.slow
    def test_is_made_again_if_it_is_damaged(self, data: ImageDataModule, tmp_path: Path, content: bytes) -> None:
        first = self.make(data, tmp_path)
        (file,) = tmp_path.glob("*.pt")
        file.write_bytes(content)
        assert self.make(data, tmp_path).metrics == first.metrics
        assert len(file.read_bytes()) > 1000

    @pytest.mark.slow
    def test_is_made_without_a_writable_folder(self, data: ImageDataModule, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        assert self.make(data, tmp_path / "file" / "cache").metrics == self.make(data, tmp_path).metrics

    def test_needs_labels(self, data: ImageDataModule, tmp_path: Path) -> None:
        data.splits["test"] = StoredImages(data.splits["test"].images)
        with pytest.raises(ValueError, match="labels"):
            self.make(data, tmp_path)

    @pytest.mark.slow
    def test_leaves_the_same_random_state_whether_it_is_made_or_read(
        self, data: ImageDataModule, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        after = []
        for folder in (tmp_path, tmp_path, tmp_path / "file" / "cache"):  # made, read, and made without a folder
            self.make(data, folder)
            after.append(torch.rand(1).item())
        assert len(set(after)) == 1

    def make(self, data: ImageDataModule, folder: Path) -> Reference:
        torch.manual_seed(1)
        return reference(data, torch.device("cpu"), 5000, str(folder))


def untrained(images: Tensor, labels: Tensor, classes: int) -> quality.Classifier:
    return quality.Classifier(images.shape[1:], classes).eval()


class TestItsImages:
    """Which images the classifier learns from, and which its features and the probes are judged on."""

    @pytest.fixture
    def data(self) -> ImageDataModule:
        config = compose_config(*TINY, "data.source.train_size=300", "data.source.test_size=200")
        data = instantiate(config.data, _convert_="all")
        data.setup()
        return data

    def test_codes_and_pixels_are_probed_on_the_same_images(
        self, data: ImageDataModule, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Of data sorted by class, the first images would be of the first classes alone."""
        monkeypatch.setattr(quality, "train_classifier", untrained)
        for split in data.splits.values():
            order = split.labels.argsort()
            split.chosen = order
        known = reference(data, torch.device("cpu"), 100, str(tmp_path))
        (train, labels), (test, test_labels) = (data.examples(name, 100) for name in ("train", "test"))
        judge = KNeighborsClassifier(10).fit(train.flatten(1).numpy(), labels.numpy())
        expected = judge.score(test.flatten(1).numpy(), test_labels.numpy())
        assert known.metrics["knn_accuracy_pixels"] == pytest.approx(expected)

    def test_held_out_images_are_new_to_the_classifier(
        self, data: ImageDataModule, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        learnt: list[Tensor] = []

        def spy(images: Tensor, *rest: Any) -> quality.Classifier:
            learnt.append(images)
            return untrained(images, *rest)

        monkeypatch.setattr(quality, "train_classifier", spy)
        known = reference(data, torch.device("cpu"), 50, str(tmp_path))
        (images,) = learnt
        assert len(known.held_out) == 60
        assert len(images) + len(known.held_out) == 300
        assert torch.cdist(known.held_out.flatten(1), images.flatten(1)).min() > 0.1
        again = reference(data, torch.device("cpu"), 50, str(tmp_path))
        assert torch.equal(known.held_out, again.held_out)
        assert len(learnt) == 1
