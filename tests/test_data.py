"""Sources, the built-in data set and the batches that reach the model."""

import gzip
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, compose_config
from hydra.utils import instantiate
from torch.nn.functional import binary_cross_entropy

from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.glyphs import FORMS, Glyphs
from vae_lightning.data.loaders import EpochShuffle, ResidentLoader
from vae_lightning.data.sources import DataError, Split, TestImagesOnly, TorchvisionMNIST, data_folder


def idx(array: np.ndarray) -> bytes:
    """An array of bytes in IDX format, compressed."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.tobytes(), mtime=0)


def write_mnist(folder: Path, source: TorchvisionMNIST, train: int = 12, test: int = 10) -> dict[str, bytes]:
    """Small files in KMNIST's format, whose checksums the source is made to expect."""
    generator = np.random.default_rng(0)
    files = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files[f"{prefix}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{prefix}-labels-idx1-ubyte.gz"] = idx(np.arange(count, dtype=np.uint8) % 10)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
        source.checksums[name] = hashlib.md5(content).hexdigest()
    return files


def test_files_are_read_where_they_lie(tmp_path: Path) -> None:
    source = TorchvisionMNIST("KMNIST", mirrors=[])
    folder = tmp_path / "KMNIST" / "raw"
    write_mnist(folder, source)
    before = sorted(folder.iterdir())
    source.prepare(tmp_path)
    train, test = source.load(tmp_path, train=True), source.load(tmp_path, train=False)
    assert sorted(folder.iterdir()) == before  # so a read-only folder is enough
    assert (train.images.shape, train.images.dtype) == ((12, 1, 28, 28), torch.uint8)
    assert (test.labels.tolist(), test.labels.dtype) == (list(range(10)), torch.int64)
    expected = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    assert np.array_equal(train.images[:, 0].numpy(), expected)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "html"])
def test_a_damaged_file_is_named(tmp_path: Path, damage: str) -> None:
    source = TorchvisionMNIST("KMNIST", mirrors=[])
    files = write_mnist(tmp_path / "KMNIST" / "raw", source)
    name = "t10k-images-idx3-ubyte.gz"
    content = bytearray(files[name])
    content[100] ^= 1
    damaged = {"truncated": files[name][:-9], "flipped": content, "empty": b"", "html": b"<html></html>"}[damage]
    (tmp_path / "KMNIST" / "raw" / name).write_bytes(damaged)
    with pytest.raises(DataError, match=f"{name} is damaged: its MD5"):
        source.load(tmp_path, train=False)
    with pytest.raises(DataError, match=f"(?s){name} is damaged.*by hand.*data=glyphs"):
        source.prepare(tmp_path)


@pytest.mark.parametrize(
    "content",
    [idx(np.zeros((3, 28), np.uint8)), gzip.compress(b"\0\0\x08\3" + b"\0\0\0\5" * 3), gzip.compress(b"")],
    ids=["other dimensions", "other length", "nothing"],
)
def test_a_file_with_the_right_checksum_and_another_shape_is_refused(tmp_path: Path, content: bytes) -> None:
    source = TorchvisionMNIST("KMNIST", mirrors=[])
    write_mnist(tmp_path / "KMNIST" / "raw", source)
    name = "t10k-images-idx3-ubyte.gz"
    (tmp_path / "KMNIST" / "raw" / name).write_bytes(content)
    source.checksums[name] = hashlib.md5(content).hexdigest()
    with pytest.raises(DataError, match="IDX"):
        source.load(tmp_path, train=False)


def test_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAE_DATA_DIR", str(tmp_path))
    assert data_folder(None) == tmp_path
    assert data_folder("elsewhere") == Path("elsewhere")
    monkeypatch.delenv("VAE_DATA_DIR")
    assert data_folder(None) == Path(__file__).parents[1] / "data"


def test_other_data_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="dataset: .* got 'CIFAR10'"):
        TorchvisionMNIST("CIFAR10")
    with pytest.raises(ValueError, match="train_size: .* got 10000"):
        TestImagesOnly("KMNIST", train_size=10_000)


@pytest.mark.skipif(
    not (data_folder(None) / "KMNIST" / "raw" / "t10k-images-idx3-ubyte.gz").is_file(), reason="no KMNIST at hand"
)
def test_the_real_images_are_the_known_ones() -> None:
    source = TestImagesOnly("KMNIST")
    source.prepare(data_folder(None))
    train, test = (source.load(data_folder(None), train) for train in (True, False))
    assert (len(train.images), len(test.images)) == (9000, 1000)
    assert 892 <= train.labels.bincount().min() <= train.labels.bincount().max() <= 907
    images = torch.cat([train.images, test.images]).double() / 255
    floor = binary_cross_entropy(images, images, reduction="sum") / len(images)
    mean = binary_cross_entropy(images.mean(0).expand_as(images), images, reduction="sum") / len(images)
    assert floor.item() == pytest.approx(82.35, abs=0.005)
    assert mean.item() == pytest.approx(339.24, abs=0.005)


def test_glyphs_are_the_same_for_a_seed_and_differ_otherwise() -> None:
    sizes = {"train_size": 205, "test_size": 60}
    train, test = (Glyphs(**sizes).load(Path(), train) for train in (True, False))
    assert (train.images.shape, test.images.shape) == ((205, 1, 28, 28), (60, 1, 28, 28))
    assert (train.images.dtype, train.labels.dtype) == (torch.uint8, torch.int64)
    assert train.labels.bincount().tolist() == [21] * 5 + [20] * 5
    again = Glyphs(**sizes)
    assert torch.equal(again.load(Path(), True).images, train.images)
    other = Glyphs(**sizes, seed=1).load(Path(), True)
    assert not torch.equal(other.images, train.images)
    # No test image is a training image.
    assert len({image.numpy().tobytes() for image in torch.cat([train.images, test.images])}) == 265


def test_glyphs_are_a_modelling_problem_and_not_ten_templates() -> None:
    split = Glyphs(train_size=2000).load(Path(), True)
    images = split.images.flatten(1).float() / 255
    means = torch.stack([images[split.labels == label].mean(0) for label in range(10)])
    within = (images - means[split.labels]).pow(2).sum() / (images - images.mean(0)).pow(2).sum()
    assert within > 0.6  # most of the variance is within the classes
    # A class can still be told from the others: the nearest neighbour mostly has it.
    distances = torch.cdist(images, images).fill_diagonal_(float("inf"))
    assert (split.labels[distances.argmin(1)] == split.labels).float().mean() > 0.9
    assert sum(len(forms) > 1 for forms in FORMS.values()) >= 5
    assert 0.08 < images.mean() < 0.3
    assert images.amax(1).min() > 0.7


@pytest.mark.parametrize("size", [16, 28, 64])
def test_glyphs_keep_clear_of_the_edge_at_any_size(size: int) -> None:
    images = Glyphs(train_size=200, image_size=size).load(Path(), True).images.float() / 255
    assert images.shape[-2:] == (size, size)
    edge = torch.cat([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]], -1)
    assert edge.mean() < 0.06


def test_all_glyphs_are_drawn_in_time() -> None:
    started = time.process_time()
    Glyphs(seed=7).load(Path(), True)
    assert time.process_time() - started < 10


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    shuffle = EpochShuffle(50, seed=3)
    first = shuffle.order()
    torch.rand(7)
    assert torch.equal(shuffle.order(), first)
    assert sorted(first.tolist()) == list(range(50))
    shuffle.set_epoch(1)
    assert not torch.equal(shuffle.order(), first)
    orders = {tuple(EpochShuffle(50, seed).order().tolist()) for seed in range(20)}
    assert len(orders) == 20


def make(**options: object) -> ImageDataModule:
    data = instantiate(compose_config(*TINY, *(f"data.{key}={value}" for key, value in options.items())).data)
    data.prepare_data()
    data.setup()
    return data


def test_resident_and_loaded_batches_are_the_same() -> None:
    resident, loaded = make(resident=True), make(resident=False, num_workers=1)
    for epoch in (0, 1):
        one, other = resident.train_dataloader(), loaded.train_dataloader()
        assert isinstance(one, ResidentLoader)
        assert not isinstance(other, ResidentLoader)
        one.sampler.set_epoch(epoch)
        other.batch_sampler.sampler.set_epoch(epoch)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
    for a, b in zip(resident.test_dataloader(), loaded.test_dataloader(), strict=True):
        assert torch.equal(a[0], b[0])


def test_an_epoch_has_every_image_once_and_keeps_the_short_batch() -> None:
    data = make(batch_size=36)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert [len(images) for images, _ in batches] == [36, 36, 24]
    assert len(data.train_dataloader()) == 3
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.float32
    assert (images.min(), images.max() <= 1) == (0, True)
    source = data.splits["train"].images.float() / 255
    assert sorted(images.sum((1, 2, 3)).tolist()) == sorted(source.sum((1, 2, 3)).tolist())


def test_pixels_can_be_scaled_as_in_the_chapter() -> None:
    data = make(scale=256)
    images, _ = data.on_after_batch_transfer(
        Split(torch.full((1, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(1)), 0
    )
    assert images.max() == 0.5


def test_the_validation_split_has_a_seed_of_its_own() -> None:
    whole = make().splits["train"]
    one, two = make(validation_size=20), make(validation_size=20, seed=9)
    other = make(validation_size=20, validation_seed=1)
    assert (len(one.splits["val"].images), len(one.splits["train"].images)) == (20, 76)
    assert torch.equal(one.splits["val"].images, two.splits["val"].images)
    assert not torch.equal(one.splits["val"].images, other.splits["val"].images)
    together = torch.cat([one.splits["val"].images, one.splits["train"].images])
    assert sorted(together.sum((1, 2, 3)).tolist()) == sorted(whole.images.sum((1, 2, 3)).tolist())
    assert make().val_dataloader() == []


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"data.image_shape=\[1, 32, 32\], but the images are \[1, 28, 28\]"):
        make(image_shape="[1,32,32]")
    with pytest.raises(DataError, match="data.validation_size=96: must be less"):
        make(validation_size=96)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"(?s){tmp_path / 'file'}.*tried to write") as caught:
        TorchvisionMNIST("KMNIST").prepare(tmp_path / "file")
    assert "data.root=FOLDER" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
