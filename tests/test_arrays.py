"""A user's images in an array file, with labels and factors."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from shared import UNMEASURED, run_command
from written_images import CLASSES, COLOUR, GENERATOR, PIXELS, everything

from vae_lightning.data.arrays import Arrays
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.sources import DataError
from vae_lightning.runs.loading import load_run

pytestmark = pytest.mark.usefixtures("cache")


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


def test_two_files_with_names_of_their_own(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=CLASSES)
    np.savez(tmp_path / "b.npz", x_test=PIXELS[:2], y_test=CLASSES[:2])
    source = Arrays(str(tmp_path / "a.npz"), test_path=str(tmp_path / "b.npz"))
    assert everything(source)[1] == [*CLASSES, *CLASSES[:2]]
    named = Arrays(str(tmp_path / "a.npz"), str(tmp_path / "b.npz"), images="x_train", labels="y_train")
    assert everything(named)[1] == [*CLASSES, *CLASSES[:2]]
    with pytest.raises(DataError, match="b.npz: set data.source.images to the name of the images, got null; the file"):
        everything(Arrays(str(tmp_path / "b.npz")))
    with pytest.raises(DataError, match=r"data.source.test_path=c.npz: there is no such file"):
        everything(Arrays(str(tmp_path / "a.npz"), test_path="c.npz"))


@pytest.mark.parametrize("kind", [str, bytes])
def test_labels_that_are_names(tmp_path: Path, kind: type) -> None:
    names = np.array(["dog", "cat", "ü"])
    labels = names[CLASSES] if kind is str else np.char.encode(names[CLASSES], "utf-8")
    np.savez(tmp_path / "a.npz", x_train=PIXELS, y_train=labels, x_test=PIXELS[:2], y_test=labels[:2])
    source = Arrays(str(tmp_path / "a.npz"))
    _, numbers = everything(source)
    assert source.class_names == ("cat", "dog", "ü")
    assert numbers == [[1, 0, 2][label] for label in [*CLASSES, *CLASSES[:2]]]
    _, numbers = everything(Arrays(str(tmp_path / "a.npz"), class_names=["dog", "cat", "ü"]))
    assert numbers == [*CLASSES, *CLASSES[:2]]
    with pytest.raises(DataError, match="y_train: must be of the classes cat, dog; got ü"):
        everything(Arrays(str(tmp_path / "a.npz"), class_names=["cat", "dog"]))


def test_labels_that_are_left_out(tmp_path: Path) -> None:
    """Several for each image, as in ChestMNIST, and factors under the usual name of labels, as in 3D Shapes."""
    np.savez(tmp_path / "a.npz", images=PIXELS, labels=np.ones((10, 3)))
    with pytest.raises(DataError, match=r"got shape \[10, 3\]; data.source.labels=false leaves labels out"):
        everything(Arrays(str(tmp_path / "a.npz")))
    assert everything(Arrays(str(tmp_path / "a.npz"), labels=False))[1] is None
    source = Arrays(str(tmp_path / "a.npz"), factors="labels")
    assert everything(source)[1] is None
    assert source.load(Path(), train=True).factors.shape == (9, 3)


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


def test_factors_may_be_named_and_some_be_categories(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 8, 8), np.uint8), factors=np.arange(18).reshape(9, 2))
    source = Arrays(str(tmp_path / "a.npz"), factor_names=["hue", "size"], categorical_factors=["hue"])
    data = ImageDataModule("a", source)
    data.setup()
    assert (data.factor_names, data.categorical_factors) == (("hue", "size"), ("hue",))
    numbered = ImageDataModule("a", Arrays(str(tmp_path / "a.npz"), categorical_factors=["2"]))
    numbered.setup()
    assert (numbered.factor_names, numbered.categorical_factors) == (("1", "2"), ("2",))
