"""A user's own images: folders, arrays, and data sets of other libraries; and what is wrong with them."""

import csv
import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from hashlib import md5
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from conftest import TINY, UNDRAWN, UNMEASURED, compose_config, run_command
from PIL import Image

from vae_lightning.building import build
from vae_lightning.data.arrays import Arrays
from vae_lightning.data.augmentation import moved
from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.folder import Folder
from vae_lightning.data.glyphs import Glyphs
from vae_lightning.data.libraries import HuggingFace, Torchvision
from vae_lightning.data.sources import DataError, Source, TorchvisionMNIST
from vae_lightning.runs.loading import load_run

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("VAE_CACHE_DIR", str(folder))
    return folder


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (20, 16), colour: Any = None) -> None:
    """PNGs of one colour each, or of a random one."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(count)
    for number in range(count):
        chosen = tuple(generator.integers(0, 256, 3).tolist()) if colour is None else colour
        Image.new("RGB" if isinstance(chosen, tuple) else "L", (size[1], size[0]), chosen).save(
            folder / f"{number:03d}.png"
        )


def everything(source: Source, root: Path = Path()) -> tuple[torch.Tensor, list[int] | None]:
    """Training and test images together."""
    source.prepare(root)
    splits = [source.load(root, train) for train in (True, False)]
    labels = None if splits[0].labels is None else [n for split in splits for n in split.labels.tolist()]
    return torch.cat([split.images for split in splits]), labels


# Folders


def test_a_flat_folder(tmp_path: Path) -> None:
    write_images(tmp_path, 10)
    source = Folder(str(tmp_path), test_share=0.3)
    images, labels = everything(source)
    assert (images.shape, labels, source.class_names) == ((10, 3, 20, 16), None, ())
    assert len(source.load(Path(), train=False).images) == 3
    expected = {Image.open(path).getpixel((0, 0)) for path in tmp_path.iterdir()}
    assert {tuple(image[:, 5, 5].tolist()) for image in images} == expected
    other = Folder(str(tmp_path), test_share=0.3, split_seed=1)
    assert not torch.equal(everything(other)[0], images)


def test_a_folder_per_class(tmp_path: Path) -> None:
    for name, colour in [("reds", RED), ("greens", GREEN), ("blues", BLUE)]:
        write_images(tmp_path / name / "deeper", 4, colour=colour)
    source = Folder(str(tmp_path), size=8, test_share=0.25)
    assert source.class_names == ("blues", "greens", "reds")
    images, labels = everything(source)
    assert images.shape == (12, 3, 8, 8)
    colours = {name: torch.tensor(colour) for name, colour in [("reds", RED), ("greens", GREEN), ("blues", BLUE)]}
    for image, label in zip(images, labels, strict=True):
        assert torch.equal(image[:, 3, 3].long(), colours[source.class_names[label]])


@pytest.mark.parametrize("test", ["test", "val"])
def test_folders_for_training_and_testing(tmp_path: Path, test: str, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path / "train" / "a", 3, colour=RED)
    write_images(tmp_path / "train" / "b", 2, colour=GREEN)
    write_images(tmp_path / test / "b", 2, colour=GREEN)
    write_images(tmp_path / "more", 1)
    source = Folder(str(tmp_path))
    source.prepare(Path())
    train, held = source.load(Path(), train=True), source.load(Path(), train=False)
    assert (train.labels.tolist(), held.labels.tolist()) == ([0, 0, 0, 1, 1], [1, 1])
    assert held.images[0, :, 0, 0].tolist() == list(GREEN)
    assert f"only train and {test} are used, not more" in caplog.text


@pytest.mark.parametrize(
    ("fit", "expected"),
    [
        ("crop", [[0, 1, 1, 0]] * 4),  # the middle of 4 × 8 pixels
        ("pad", [[9, 9, 9, 9], [0, 0, 1, 1], [1, 1, 0, 0], [9, 9, 9, 9]]),
    ],
)
def test_pictures_of_another_shape(tmp_path: Path, fit: str, expected: list[list[int]]) -> None:
    """A band of white in the middle of a wide picture."""
    if fit == "crop":
        array = np.zeros((4, 8), np.uint8)
        array[:, 3:5] = 255
    else:
        array = np.zeros((4, 8), np.uint8)
        array[:2, 4:] = array[2:, :4] = 255
    for name in "ab":
        Image.fromarray(array).save(tmp_path / f"{name}.png")
    images, _ = everything(Folder(str(tmp_path), size=4, fit=fit, background=119))
    found = images[0, 0].numpy()
    for row, wanted in zip(found, expected, strict=True):
        for value, level in zip(row, wanted, strict=True):
            assert abs(int(value) - {0: 0, 1: 255, 9: 119}[level]) <= (0 if level == 9 else 30)


def oriented(orientation: int) -> bytes:
    """A wide JPEG, left half black, which is to be seen turned according to its EXIF data."""
    array = np.zeros((16, 32), np.uint8)
    array[:, 16:] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(target := io.BytesIO(), "JPEG", exif=exif, quality=95)
    return target.getvalue()


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    picture.save(target := io.BytesIO(), kind, **options)
    return target.getvalue()


def palette() -> Image.Image:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([*RED, *GREEN])
    return picture


def deep() -> Image.Image:
    return Image.fromarray(np.full((4, 4), 0x80FF, np.uint16))


HALF = Image.new("RGBA", (4, 4), (0, 0, 0, 128))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.png", saved(palette(), "PNG"), GREEN),
        ("a.png", saved(palette(), "PNG", transparency=1), (255, 255, 255)),
        ("a.gif", saved(palette(), "GIF"), GREEN),
        ("a.png", saved(deep(), "PNG"), 128),
        ("a.tif", saved(deep(), "TIFF"), 128),
        ("a.tiff", saved(Image.fromarray(np.full((4, 4), 0.5, np.float32)), "TIFF"), 128),
        ("a.png", saved(HALF, "PNG"), (127, 127, 127)),
        ("a.png", saved(Image.new("LA", (4, 4), (0, 0)), "PNG"), 255),
        ("a.png", saved(Image.new("1", (4, 4), 1), "PNG"), 255),
        ("a.BMP", saved(Image.new("RGB", (4, 4), BLUE), "BMP"), BLUE),
        ("a.webp", saved(Image.new("RGB", (4, 4), BLUE), "WEBP", lossless=True), BLUE),
        ("a.jpg", saved(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"), RED),
        ("a.gif", saved(Image.new("L", (4, 4), 9), "GIF", save_all=True, append_images=[HALF.convert("L")]), 9),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_kind_of_image(tmp_path: Path, name: str, content: bytes, expected: int | tuple[int, ...]) -> None:
    (tmp_path / name).write_bytes(content)
    (tmp_path / f"b{name[1:]}").write_bytes(content)
    images, _ = everything(Folder(str(tmp_path)))
    levels = [expected] if isinstance(expected, int) else list(expected)
    assert images.shape == (2, len(levels), 4, 4)
    assert (images[:, :, 1, 1].long() - torch.tensor(levels)).abs().max() <= 2


def test_pictures_are_upright(tmp_path: Path) -> None:
    """6: to be turned by a quarter clockwise, so that what was left is above."""
    for name in "ab":
        (tmp_path / f"{name}.jpg").write_bytes(oriented(6))
    source = Folder(str(tmp_path))
    assert source.image_shape == (1, 32, 16)
    images, _ = everything(source)
    assert images[0, 0, :12].float().mean() < 10
    assert images[0, 0, 20:].float().mean() > 245


def test_sizes_that_differ_become_usual(tmp_path: Path) -> None:
    write_images(tmp_path / "a", 2, (20, 16), colour=7)
    write_images(tmp_path / "b", 2, (30, 16), colour=7)
    assert Folder(str(tmp_path)).image_shape == (1, 64, 64)
    assert Folder(str(tmp_path), size=[12, 10]).image_shape == (1, 12, 10)
    assert Folder(str(tmp_path / "a"), channels=3).image_shape == (3, 20, 16)
    write_images(tmp_path / "c", 2, (200, 200))
    assert Folder(str(tmp_path / "c")).image_shape == (3, 64, 64)


def test_images_are_decoded_once_and_again_after_a_change(tmp_path: Path, cache: Path) -> None:
    write_images(tmp_path, 4, colour=50)
    first, _ = everything(Folder(str(tmp_path)))
    (made,) = cache.glob("images/*/about.json")
    written = made.stat().st_mtime_ns
    assert torch.equal(everything(Folder(str(tmp_path)))[0], first)
    assert made.stat().st_mtime_ns == written
    Image.new("L", (16, 20), 200).save(tmp_path / "000.png")
    os.utime(tmp_path / "000.png", ns=(1, 1))
    again, _ = everything(Folder(str(tmp_path)))
    assert sorted(again.amax((1, 2, 3)).tolist()) == [50, 50, 50, 200]
    assert first.max() == 50  # a run that has the old ones mapped keeps them
    (made.parent / "train.images").write_bytes(b"cut off")
    assert torch.equal(everything(Folder(str(tmp_path)))[0], again)
    everything(Folder(str(tmp_path), size=8))
    assert len(list(cache.glob("images/*/about.json"))) == 2
    assert not list(cache.rglob("*.partial"))


def prepared(path: str) -> float:
    return float(everything(Folder(path))[0].double().sum())


def test_several_processes_decode_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, 40)
    with ProcessPoolExecutor(4, mp_context=get_context("fork")) as processes:
        sums = list(processes.map(prepared, [str(tmp_path)] * 4))
    assert len(set(sums)) == 1
    assert prepared(str(tmp_path)) == sums[0]


def test_a_validation_split_copies_nothing(tmp_path: Path) -> None:
    write_images(tmp_path, 12)
    data = ImageDataModule("x", Folder(str(tmp_path)), validation_size=3, batch_size=4)
    data.setup()
    assert data.image_shape == (3, 20, 16)
    assert {name: len(split) for name, split in data.splits.items()} == {"val": 3, "train": 8, "test": 1}
    pointers = {split._images.data_ptr() for name, split in data.splits.items() if name != "test"}
    assert len(pointers) == 1
    together = torch.cat([data.splits[name].images for name in ("val", "train")])
    whole = data.source.load(Path(), train=True).images
    assert sorted(together.flatten(1).tolist()) == sorted(whole.flatten(1).tolist())


def test_a_run_and_its_resumption(tmp_path: Path) -> None:
    """One line trains; the resolved shape is kept with the run, which resumes by the same line."""
    for name in ("first", "second"):
        write_images(tmp_path / "pictures" / name, 30, (12, 12))
    options = [option for option in TINY if not option.startswith(("data=", "data.source"))]
    line = ["data=folder", "data.source.path=pictures", *options, *UNDRAWN, "hydra.run.dir=run"]
    done = run_command("vae_lightning.cli", *line, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data       reading 60 images of pictures, once …" in done.stdout
    assert "data       pictures: 54 images to train on" in done.stdout
    assert "image_shape:\n  - 3\n  - 12\n  - 12\n" in (tmp_path / "run" / "config.yaml").read_text()
    longer = run_command("vae_lightning.cli", *line, "trainer.max_epochs=3", "resume=true", cwd=tmp_path)
    assert (longer.returncode, longer.stderr) == (0, "")
    assert "reading" not in longer.stdout
    made = run_command("vae_lightning.generate", "reconstruct", "run", "--test", "4", "-o", "out.png", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert Image.open(tmp_path / "out.png").mode == "RGB"


# Arrays

GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (10, 6, 5), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
CLASSES = np.arange(10) % 3


def test_the_formats_of_arrays(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    np.savez_compressed(tmp_path / "a.npz", images=PIXELS, labels=CLASSES)
    np.save(tmp_path / "a.npy", PIXELS)
    torch.save({"images": torch.from_numpy(PIXELS), "labels": torch.from_numpy(CLASSES)}, tmp_path / "a.pt")
    torch.save((torch.from_numpy(PIXELS), torch.from_numpy(CLASSES)), tmp_path / "pair.pt")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["images"], file["labels"] = PIXELS, CLASSES
    for name in ("a.npz", "a.npy", "a.pt", "pair.pt", "a.h5"):
        images, labels = everything(Arrays(str(tmp_path / name), test_share=0.2))
        assert sorted(images[:, 0].flatten(1).tolist()) == sorted(PIXELS.reshape(10, -1).tolist())
        assert labels is None if name == "a.npy" else sorted(labels) == sorted(CLASSES.tolist())
    images, _ = everything(Arrays(str(tmp_path / "a.npz"), test_path=str(tmp_path / "a.pt")))
    assert images.shape == (20, 1, 6, 5)


@pytest.mark.parametrize(
    ("arrays", "shape"),
    [
        ({"x_train": PIXELS[:7], "y_train": CLASSES[:7], "x_test": PIXELS[7:], "y_test": CLASSES[7:]}, (1, 6, 5)),
        ({"train_images": COLOUR[:7], "test_images": COLOUR[7:], "train_labels": CLASSES[:7, None],
          "test_labels": CLASSES[7:, None], "val_images": COLOUR[:2]}, (3, 6, 5)),
    ],
    ids=["as in Keras", "as in MedMNIST"],
)  # fmt: skip
def test_arrays_that_are_split_already(tmp_path: Path, arrays: dict[str, np.ndarray], shape: tuple[int, ...]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    source = Arrays(str(tmp_path / "a.npz"))
    assert source.image_shape == shape
    train, test = source.load(Path(), train=True), source.load(Path(), train=False)
    assert (train.labels.tolist(), test.labels.tolist()) == (CLASSES[:7].tolist(), CLASSES[7:].tolist())
    expected = PIXELS[7, None] if shape[0] == 1 else COLOUR[7].transpose(2, 0, 1)
    assert np.array_equal(test.images[0].numpy(), expected)


@pytest.mark.parametrize(
    "array",
    [PIXELS / 255.0, (PIXELS / 255).astype(np.float32), PIXELS.astype(np.int64), PIXELS],
    ids=["float64", "float32", "int64", "uint8"],
)
def test_types_of_pixels(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    images, _ = everything(Arrays(str(tmp_path / "a.npy")))
    assert sorted(images[:, 0].flatten(1).tolist()) == sorted(PIXELS.reshape(10, -1).tolist())


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_binary_pixels(tmp_path: Path, kind: type) -> None:
    np.save(tmp_path / "a.npy", (PIXELS > 128).astype(kind))
    images, _ = everything(Arrays(str(tmp_path / "a.npy")))
    assert sorted(images.unique().tolist()) == [0, 255]


def test_the_axis_of_channels(tmp_path: Path) -> None:
    np.save(tmp_path / "last.npy", COLOUR)
    np.save(tmp_path / "first.npy", COLOUR.transpose(0, 3, 1, 2))
    last, first = (everything(Arrays(str(tmp_path / f"{name}.npy")))[0] for name in ("last", "first"))
    assert torch.equal(last, first)
    np.save(tmp_path / "either.npy", COLOUR[:, :3])
    with pytest.raises(DataError, match="set data.source.channels_last to true or false"):
        everything(Arrays(str(tmp_path / "either.npy")))
    assert Arrays(str(tmp_path / "either.npy"), channels_last=True).image_shape == (3, 3, 5)
    assert Arrays(str(tmp_path / "either.npy"), channels_last=False).image_shape == (3, 5, 3)


@pytest.mark.parametrize("name", ["factors", "latents_values", "own"])
def test_factors_stay_with_their_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Through the choice of test and validation images, to the table of codes."""
    monkeypatch.chdir(tmp_path)
    brightness = GENERATOR.permutation(60)
    images = np.repeat(brightness, 64).reshape(60, 8, 8).astype(np.uint8) + 100
    factors = np.stack([brightness / 7, -brightness], 1)
    np.savez(tmp_path / "a.npz", images=images, **{name: factors})
    line = ["data=arrays", "data.source.path=a.npz", "model=mlp", *UNMEASURED, "logger=none", "data.batch_size=16"]
    line += ["data.validation_size=10", "trainer.max_epochs=1", "trainer.accelerator=cpu", "hydra.run.dir=run"]
    line += ["data.source.factors=own"] * (name == "own")
    assert (done := run_command("vae_lightning.cli", *line, cwd=tmp_path)).returncode == 0, done.stderr
    for output in ("codes.csv", "codes.npz"):
        command = ["encode", "run", "--test", "5", "-o", output]
        assert (done := run_command("vae_lightning.generate", *command, cwd=tmp_path)).returncode == 0, done.stderr
    data = load_run(tmp_path / "run").data
    shown = [round(image.mean().item() * 255 - 100) for image in data.examples("test", 5).images]
    with (tmp_path / "codes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["factor_2"]) for row in rows] == [-value for value in shown]
    assert [float(row["factor_1"]) for row in rows] == pytest.approx([value / 7 for value in shown])
    codes = np.load(tmp_path / "codes.npz")
    assert (codes["factors"][:, 1] == [-value for value in shown]).all()
    assert codes["factor_names"].tolist() == ["1", "2"]
    for split in ("train", "val"):
        numbers = torch.arange(10)
        found = data.factors(split, numbers)
        assert found is not None
        assert (found[:, 1] == 100 - data.numbered(split, numbers).images.mean((1, 2, 3)).mul(255).round()).all()


# Data sets of other libraries


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10's files with four pictures each, whose checksums torchvision is made to expect."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    kind, pixels, lists = torchvision.datasets.CIFAR10, [], {}
    for name in ("train_list", "test_list"):
        lists[name] = []
        for file, _ in getattr(kind, name):
            data = GENERATOR.integers(0, 256, (4, 3072), dtype=np.uint8)
            content = pickle.dumps({"data": data, "labels": [0, 1, 2, 9]})
            (folder / file).write_bytes(content)
            lists[name].append([file, md5(content).hexdigest()])
            pixels.append(data)
    content = pickle.dumps({"label_names": [f"class {number}" for number in range(10)]})
    (folder / "batches.meta").write_bytes(content)
    monkeypatch.setattr(kind, "meta", kind.meta | {"md5": md5(content).hexdigest()})
    for name, files in lists.items():
        monkeypatch.setattr(kind, name, files)
    return np.concatenate(pixels).reshape(-1, 3, 32, 32)


def test_torchvisions_data_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar10(tmp_path, monkeypatch)
    config = compose_config("data=cifar10", f"data.root={tmp_path}", "model=mlp")
    config.run_dir = str(tmp_path)
    data = build(config)[1]
    data.prepare_data()
    data.setup()
    assert data.class_names[9] == "class 9"
    assert np.array_equal(data.splits["train"].images.numpy(), pixels[:20])
    assert np.array_equal(data.splits["test"].images.numpy(), pixels[20:])
    assert data.splits["test"].labels.tolist() == [0, 1, 2, 9]
    grey = Torchvision("CIFAR10", (1, 16, 16), {"train": True}, {"train": False}, labels=False)
    images, labels = everything(grey, tmp_path)
    assert (images.shape, labels) == ((24, 1, 16, 16), None)


def built_and_read(root: Path, choice: str) -> ImageDataModule:
    config = compose_config(f"data={choice}", f"data.root={root}", "model=mlp")
    config.run_dir = str(root / "run")
    data = build(config)[1]
    data.prepare_data()
    data.setup()
    return data


def test_files_of_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MATLAB's arrays, in which the digit 0 has the label 10."""
    kind, pixels, parts = torchvision.datasets.SVHN, {}, dict(torchvision.datasets.SVHN.split_list)
    for split, count in [("train", 5), ("test", 3)]:
        url, name, _ = parts[split]
        pixels[split] = GENERATOR.integers(0, 256, (32, 32, 3, count), dtype=np.uint8)
        labels = np.array([[10], [1], [9], [3], [10]], np.uint8)[:count]
        scipy.io.savemat(tmp_path / name, {"X": pixels[split], "y": labels})
        parts[split] = [url, name, md5((tmp_path / name).read_bytes()).hexdigest()]
    monkeypatch.setattr(kind, "split_list", parts)
    data = built_and_read(tmp_path, "svhn")
    for split in ("train", "test"):
        assert np.array_equal(data.splits[split].images.numpy(), pixels[split].transpose(3, 2, 0, 1))
    assert data.splits["train"].labels.tolist() == [0, 1, 9, 3, 0]
    assert data.class_names == tuple(map(str, range(10)))


def test_files_of_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures of 178 × 218 pixels, in splits of which validation is left out; no classes."""
    folder = tmp_path / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{number:06}.jpg" for number in range(1, 7)]
    for number, name in enumerate(names):
        picture = np.zeros((218, 178, 3), np.uint8)
        picture[20:198] = 40 * number + 10  # the middle square alone
        Image.fromarray(picture).save(folder / "img_align_celeba" / name, quality=95)
    tables = {
        "list_eval_partition.txt": [f"{name} {part}" for name, part in zip(names, [0, 0, 1, 2, 0, 2], strict=True)],
        "identity_CelebA.txt": [f"{name} 7" for name in names],
        "list_bbox_celeba.txt": ["6", "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": ["6", "lefteye_x lefteye_y", *(f"{name}  1  2" for name in names)],
        "list_attr_celeba.txt": ["6", "Bald Smiling ", *(f"{name} -1  1" for name in names)],
    }
    listed = []
    for identifier, checksum, file in torchvision.datasets.CelebA.file_list:
        if file in tables:
            (folder / file).write_text("\n".join(tables[file]) + "\n")
            checksum = md5((folder / file).read_bytes()).hexdigest()
        listed.append((identifier, checksum, file))
    monkeypatch.setattr(torchvision.datasets.CelebA, "file_list", listed)
    data = built_and_read(tmp_path, "celeba")
    train, test = (data.splits[split].images for split in ("train", "test"))
    assert (train.shape, test.shape) == ((3, 3, 64, 64), (2, 3, 64, 64))
    assert data.splits["train"].labels is None
    expected = torch.tensor([10, 50, 170])
    assert (train.float().mean((1, 2, 3)) - expected).abs().max() < 2
    assert train[2].min() > 120  # nothing of the black above and below


def test_files_of_omniglot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of alphabets and characters, which differ between training and test: no classes."""
    kind, checksums = torchvision.datasets.Omniglot, {}
    for folder, alphabets in [("images_background", 2), ("images_evaluation", 1)]:
        for alphabet in range(alphabets):
            for character in range(2):
                place = tmp_path / "omniglot-py" / folder / f"alphabet{alphabet}" / f"character{character:02}"
                place.mkdir(parents=True)
                picture = np.full((105, 105), 255, np.uint8)
                picture[40:60, 40:60] = 0
                Image.fromarray(picture).convert("1").save(place / "0001_01.png")
        archive = tmp_path / "omniglot-py" / f"{folder}.zip"
        archive.write_bytes(folder.encode())
        checksums[folder] = md5(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(kind, "zips_md5", checksums)
    data = built_and_read(tmp_path, "omniglot")
    train, test = (data.splits[split].images for split in ("train", "test"))
    assert (train.shape, test.shape) == ((4, 1, 28, 28), (2, 1, 28, 28))
    assert data.class_names == ()
    assert train[0, 0, 13, 13] < 60
    assert train[0, 0, 0, 0] == 255


def test_torchvisions_options_are_checked() -> None:
    for dataset in ("CIFAR11", "VisionDataset.mro", "_optical_flow"):
        with pytest.raises(ValueError, match="must be the name of a class in torchvision.datasets"):
            Torchvision(dataset, (3, 32, 32), {}, {})
    with pytest.raises(ValueError, match=r"test: must be options of CIFAR10 \(download, train\), got split"):
        Torchvision("CIFAR10", (3, 32, 32), {"train": True}, {"split": "test"})
    assert Torchvision("EMNIST", (1, 28, 28), {"split": "letters", "train": True}, {"split": "letters"}).options


@pytest.mark.parametrize("labelled", [True, False])
def test_data_sets_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool) -> None:
    """One in a folder, as `datasets` reads it."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hub"))
    for part, count in [("train", 6), ("test", 3)]:
        for name, colour in [("reds", RED), ("blues", BLUE)] if labelled else [("", RED)]:
            write_images(tmp_path / "set" / part / name, count, (9, 9), colour)
    source = HuggingFace(str(tmp_path / "set"), (3, 8, 8))
    images, labels = everything(source)
    assert images.shape == (18 if labelled else 9, 3, 8, 8)
    assert source.class_names == (("blues", "reds") if labelled else ())
    if labelled:
        assert [int(image[0].max()) == 255 for image in images] == [label == 1 for label in labels]
    held = HuggingFace(str(tmp_path / "set"), (3, 8, 8), test=None, test_share=0.5)
    assert len(everything(held)[0]) == (12 if labelled else 6)
    with pytest.raises(DataError, match=r"data.source.test=dev: must be one of train, test; null holds some out"):
        everything(HuggingFace(str(tmp_path / "set"), (3, 8, 8), test="dev"))
    with pytest.raises(DataError, match="data.source.image=picture: must be one of the columns image"):
        everything(HuggingFace(str(tmp_path / "set"), (3, 8, 8), image="picture"))
    with pytest.raises(DataError, match="data.source.name=.*nowhere: cannot be loaded"):
        everything(HuggingFace(str(tmp_path / "nowhere"), (3, 8, 8)))


def test_unpacked_files_of_mnist(tmp_path: Path) -> None:
    """As torchvision leaves them, of which only the known ones are read."""
    import gzip

    import vae_lightning.data.sources as sources

    source = TorchvisionMNIST("MNIST", mirrors=[])
    folder = tmp_path / "MNIST" / "raw"
    folder.mkdir(parents=True)
    known = {}
    for prefix, count in [("train", 5), ("t10k", 3)]:
        for kind, array in [("images-idx3", PIXELS[:count]), ("labels-idx1", CLASSES[:count].astype(np.uint8))]:
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            name = f"{prefix}-{kind}-ubyte"
            (folder / name).write_bytes(header + array.tobytes())
            packed = gzip.compress(header + array.tobytes(), mtime=0)
            source.checksums[f"{name}.gz"] = md5(packed).hexdigest()
            known[md5(packed).hexdigest()] = md5(header + array.tobytes()).hexdigest()
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte.gz"):
        source.prepare(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "CONTENTS", known)
        source.prepare(tmp_path)
        assert np.array_equal(source.load(tmp_path, train=True).images[:, 0].numpy(), PIXELS[:5])
        damaged = bytearray((folder / "t10k-images-idx3-ubyte").read_bytes())
        damaged[-1] ^= 1
        (folder / "t10k-images-idx3-ubyte").write_bytes(damaged)
        with pytest.raises(DataError, match="t10k-images-idx3-ubyte.gz"):
            source.load(tmp_path, train=False)
    everything_known = {checksum for _, checksum in torchvision.datasets.MNIST.resources}
    assert everything_known <= set(sources.CONTENTS)


# Augmentation


def test_flips_and_shifts() -> None:
    images = torch.rand(200, 2, 5, 6)
    torch.manual_seed(0)
    flipped = moved(images, horizontal_flip=True, shift=0)
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 60 < sum(mirrored) < 140
    single = torch.zeros(2000, 1, 5, 5)
    single[:, :, 2, 2] = 1
    where = moved(single, horizontal_flip=False, shift=2).flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=25).float()
    assert (counts - 80).abs().max() < 45  # every place as often
    border = moved(images, False, 2)
    assert set(border[0].unique().tolist()) <= set(images[0].unique().tolist())


def test_training_images_are_moved_alike_for_any_number_of_batches_a_call() -> None:
    images = torch.from_numpy(COLOUR).movedim(-1, 1)
    found = []
    for batches in (1, 2):
        data = ImageDataModule("x", Glyphs(), batch_size=5, horizontal_flip=True, shift=2, binarize="dynamic")
        data.trainer = SimpleNamespace(training=True)
        data.batches_per_call = batches
        torch.manual_seed(0)
        calls = [data.on_after_batch_transfer(Batch(part), 0) for part in images.split(5 * batches)]
        found.append([one.images for call in calls for one in (call if isinstance(call, list) else [call])])
    assert [part.shape for part in found[0]] == [(5, 3, 6, 5)] * 2
    assert all(map(torch.equal, *found))
    data.trainer = SimpleNamespace(training=False)
    data.binarize = "none"
    assert torch.equal(data.on_after_batch_transfer(Batch(images), 0).images, images / 255)


# What is wrong with a user's data

PNG = saved(Image.new("RGB", (4, 4), RED), "PNG")
JPEG = saved(Image.effect_noise((64, 64), 50), "JPEG")
SEVENS = Image.fromarray(np.full((4, 4), 7, np.float32))
Change = Callable[[Path], Any]


def write(name: str, content: bytes | str) -> Change:
    def change(folder: Path) -> None:
        file = folder / "data" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


def link(name: str, target: str) -> Change:
    def change(folder: Path) -> None:
        (folder / "outside").mkdir(exist_ok=True)
        (folder / "outside" / "x.png").write_bytes(PNG)
        (folder / "data").mkdir(exist_ok=True)
        (folder / "data" / name).symlink_to(folder / target)

    return change


def save(name: str, **arrays: Any) -> Change:
    def change(folder: Path) -> None:
        (folder / "data").mkdir(exist_ok=True)
        np.savez(folder / "data" / name, **arrays)

    return change


def huge_png() -> bytes:
    """The header of a picture of 50,000 × 50,000 pixels."""
    content = bytearray(PNG)
    content[16:24] = (50_000).to_bytes(4, "big") * 2
    import zlib

    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


GOOD = both(write("1.png", PNG), write("2.png", PNG), write("3.png", PNG))
FOLDER, ARRAYS = ["data=folder", "data.source.path=data"], ["data=arrays", "data.source.path=data/a.npz"]
BAD: dict[str, tuple[Change, list[str], str]] = {
    "no path": (GOOD, ["data=folder"], "data.source.path has no value"),
    "no such folder": (GOOD, ["data=folder", "data.source.path=nowhere"], "nowhere: there is no such folder"),
    "a file as folder": (GOOD, ["data=folder", "data.source.path=data/1.png"], "is not a folder"),
    "an empty folder": (lambda folder: (folder / "data").mkdir(), FOLDER, "no images in it; known are PNG, JPEG"),
    "no image": (write("a.txt", "text"), FOLDER, "no images in it"),
    "one image": (write("a.png", PNG), FOLDER, "there must be at least one to train on and one to test on"),
    "a text called .png": (both(GOOD, write("4.png", "no picture")), FOLDER, "4.png is not an image in a known format"),
    "an empty file": (both(GOOD, write("4.png", "")), FOLDER, "4.png is not an image"),
    "half a PNG": (both(GOOD, write("4.png", PNG[: len(PNG) // 2])), FOLDER, "4.png"),
    "half a JPEG": (both(GOOD, write("4.jpg", JPEG[: len(JPEG) // 2])), FOLDER, "4.jpg is damaged"),
    "a picture of 2.5 billion pixels": (both(GOOD, write("4.png", huge_png())), FOLDER, "4.png has"),
    "all broken": (both(write("1.png", "a"), write("2.png", "b")), FOLDER, "2 of 2 images cannot be read"),
    "floats beyond 1": (both(GOOD, write("4.tif", saved(SEVENS, "TIFF"))), FOLDER, "from 7 to 7, outside 0 to 1"),
    "a link out of the folder": (both(GOOD, link("4.png", "outside/x.png")), FOLDER, "4.png is a link out of the"),
    "a link to a folder": (both(GOOD, link("more", "data")), FOLDER, "more is a link to a folder"),
    "a dead link": (both(GOOD, link("4.png", "data/5.png")), FOLDER, "4.png is not a file"),
    "images beside classes": (both(GOOD, write("a/4.png", PNG)), FOLDER, "beside and inside the classes' folders"),
    "no test images of the folder": (
        both(write("train/a/1.png", PNG), write("test/a/1.txt", "")), FOLDER, "there must be at least one"
    ),
    "a wrong fit": (GOOD, [*FOLDER, "data.source.fit=stretch"], "data.source.fit: must be crop or pad"),
    "no pixels": (GOOD, [*FOLDER, "data.source.size=0"], "data.source.size: must be a number of pixels"),
    "two channels": (GOOD, [*FOLDER, "data.source.channels=2"], "data.source.channels: must be 1 or 3, got 2"),
    "all for testing": (GOOD, [*FOLDER, "data.source.test_share=1.0"], "must be a number between 0 and 1"),
    "an unknown way out": (GOOD, [*FOLDER, "data.source.on_error=ignore"], "must be fail or skip"),
    "another shape": (GOOD, [*FOLDER, "data.image_shape=[1,28,28]"], "must be [3, 4, 4], as the images of data are"),
    "a cache that is a file": (
        both(GOOD, write("cache", "")), [*FOLDER, "data.source.cache=data/cache"], "cannot keep the decoded images in"
    ),
    "a cache that may not be written": (GOOD, [*FOLDER, "data.source.cache=/proc/self/cache"], "VAE_CACHE_DIR"),
    "no array file": (GOOD, ARRAYS, "data/a.npz: there is no such file"),
    "another format": (GOOD, ["data=arrays", "data.source.path=data/1.png"], "must be a .npz, .npy, .pt or .h5 file"),
    "a text called .npz": (write("a.npz", "text"), ARRAYS, "data/a.npz: cannot be read"),
    "a text called .npy": (write("a.npy", "text"), ["data=arrays", "data.source.path=data/a.npy"], "cannot be read"),
    "a text called .pt": (write("a.pt", "text"), ["data=arrays", "data.source.path=data/a.pt"], "cannot be read"),
    "a text called .h5": (write("a.h5", "text"), ["data=arrays", "data.source.path=data/a.h5"], "cannot be read"),
    "arrays that run code": (
        save("a.npz", images=np.array([print], dtype=object)), ARRAYS, "a.npz: images cannot be read: Object arrays"
    ),
    "NaN": (save("a.npz", images=np.full((4, 6, 6), np.nan)), ARRAYS, "must be floats from 0 to 1, got nan to nan"),
    "floats up to 255": (save("a.npz", images=np.full((4, 6, 6), 255.0)), ARRAYS, "got 255 to 255"),
    "negative pixels": (save("a.npz", images=np.full((4, 6, 6), -1)), ARRAYS, "whole numbers from 0 to 255, got -1"),
    "texts as pixels": (save("a.npz", images=np.full((4, 6, 6), "a")), ARRAYS, "must be numbers, got <U1"),
    "two dimensions": (save("a.npz", images=PIXELS[0]), ARRAYS, "must be of shape (N, H, W), or"),
    "four channels": (save("a.npz", images=np.zeros((4, 6, 6, 4))), ARRAYS, "with 1 or 3 channels"),
    "no pictures": (save("a.npz", images=np.zeros((0, 6, 6))), ARRAYS, "must be of shape"),
    "labels of another length": (save("a.npz", images=PIXELS, labels=CLASSES[:9]), ARRAYS, "each of the 10 images"),
    "labels below 0": (save("a.npz", images=PIXELS, labels=CLASSES - 1), ARRAYS, "must be whole numbers from 0"),
    "broken labels": (save("a.npz", images=PIXELS, labels=CLASSES / 2), ARRAYS, "must be whole numbers from 0"),
    "one-hot labels": (save("a.npz", images=PIXELS, labels=np.eye(10)), ARRAYS, "got shape [10, 10]"),
    "factors of another length": (save("a.npz", images=PIXELS, factors=np.ones((9, 2))), ARRAYS, "(10, K), a row"),
    "factors that are one": (save("a.npz", images=PIXELS, factors=np.ones(10)), ARRAYS, "for each image, got [10]"),
    "infinite factors": (save("a.npz", images=PIXELS, factors=np.full((10, 2), np.inf)), ARRAYS, "must be finite"),
    "factors in words": (save("a.npz", images=PIXELS, factors=np.full((10, 2), "a")), ARRAYS, "must be numbers"),
    "unknown factors": (save("a.npz", images=PIXELS), [*ARRAYS, "data.source.factors=x"], "of the factors, got x"),
    "unknown names": (save("a.npz", one=PIXELS, two=PIXELS), ARRAYS, "the name of the images, got null; the file has"),
    "another name": (save("a.npz", images=PIXELS), [*ARRAYS, "data.source.images=x"], "got x; the file has images"),
    "no such data set": (GOOD, ["data=torchvision", "data.source.dataset=CIFAR11"], "data.source.dataset: must be"),
    "a data set without a name": (GOOD, ["data=huggingface"], "data.source.name has no value"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], case: str
) -> None:
    from test_bad_inputs import run

    change, options, message = BAD[case]
    change(tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = ["model=mlp", "callbacks=none", "logger=none", "trainer.max_epochs=1", "trainer.accelerator=cpu"]
    code = run("vae-train", *options, *quick)
    said = capfd.readouterr()
    assert code in (1, 2), said
    assert message in said.err, said
    assert "Traceback" not in said.out + said.err
    assert len(said.err.splitlines()) <= 4


def test_broken_files_are_named_and_may_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_images(tmp_path, 20)
    for number in range(12):
        (tmp_path / f"{number:03d}.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="12 of 20 images cannot be read") as error:
        everything(Folder(str(tmp_path)))
    lines = str(error.value).splitlines()
    assert [line.split()[0] for line in lines[1:11]] == [f"{number:03d}.png" for number in range(10)]
    assert lines[11:] == ["  … and 2 more", "data.source.on_error=skip leaves them out."]
    images, _ = everything(Folder(str(tmp_path), on_error="skip", test_share=0.5))
    assert images.shape == (8, 3, 20, 16)
    assert "left out: 12 of 20 images cannot be read" in caplog.text


def test_a_disk_that_is_full_while_images_are_decoded(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 60, (128, 128))
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        with pytest.raises(DataError, match=r"cannot keep the decoded images in .*: No space left on device"):
            everything(Folder(str(tmp_path / "images"), cache=str(small)))
        assert not list(small.rglob("*.partial"))
    finally:
        subprocess.run(["umount", small], check=True)


def test_without_the_hubs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install vae-lightning\[huggingface\]"):
        HuggingFace("x", (3, 8, 8)).prepare(Path())
