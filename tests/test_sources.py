"""Where images come from: files in MNIST's format, and the glyphs."""

import gzip
import hashlib
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from vae_lightning.data.glyphs import FORMS, Glyphs
from vae_lightning.data.sources import DataError, TestImagesOnly, TorchvisionMNIST, data_folder


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


@pytest.mark.slow
def test_all_glyphs_are_drawn_in_time() -> None:
    started = time.process_time()
    Glyphs(seed=7).load(Path(), True)
    assert time.process_time() - started < 10
