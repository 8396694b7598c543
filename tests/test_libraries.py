"""Data sets of torchvision and of the Hugging Face hub, from files of their formats."""

import pickle
import sys
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision
from PIL import Image
from shared import compose_config
from written_images import BLUE, CLASSES, GENERATOR, PIXELS, RED, everything, write_images

from vae_lightning.building import build
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.libraries import HuggingFace, Torchvision
from vae_lightning.data.sources import DataError, TorchvisionMNIST

pytestmark = pytest.mark.usefixtures("cache")


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


def test_torchvisions_data_sets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
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
    for _ in range(2):  # each choice is decoded once
        everything(Torchvision("CIFAR10", (1, 16, 16), {"train": False}, {"train": True}), tmp_path)
        assert np.array_equal(everything(grey, tmp_path)[0], images)
    assert caplog.text.count("reading 24 images of CIFAR10, once") == 3


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
    with pytest.raises(ValueError, match=r"test: must be options of CIFAR10 \(download, train\) .*, got split"):
        Torchvision("CIFAR10", (3, 32, 32), {"train": True}, {"split": "test"})
    with pytest.raises(
        ValueError, match=r"train: must be options of Caltech101 \(download, target_type\) .*, got null"
    ):
        Torchvision("Caltech101", (3, 32, 32))
    assert Torchvision("USPS", (1, 16, 16)).options == ({"train": True}, {"train": False})
    assert Torchvision("DTD", (3, 32, 32), {"split": "val"}).options == ({"split": "val"}, {"split": "test"})
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


@pytest.fixture
def species(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a data set of the hub with several columns, whose test images have no labels."""
    datasets = pytest.importorskip("datasets")
    columns = {
        "picture": [Image.fromarray(pixels) for pixels in PIXELS],
        "label": CLASSES,
        "species": ["dog", "cat", "cat", "dog", "cat"] * 2,
        "score": CLASSES / 2,
        "id": CLASSES - 1,
        "date": CLASSES + 20_240_101,
    }
    features = {"picture": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    features |= {
        name: datasets.Value(kind)
        for name, kind in [("species", "string"), ("score", "float32"), ("id", "int32"), ("date", "int64")]
    }
    train, test, torn = (
        datasets.Dataset.from_dict({**columns, **more}, features=datasets.Features(features))
        for more in ({}, {"label": [-1] * 10}, {"picture": [*columns["picture"][:9], None]})
    )
    loaded = datasets.DatasetDict(train=train, test=test, torn=torn)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: loaded)
    return "species"


def test_labels_of_the_hub(species: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    source = HuggingFace(species, (1, 6, 5), test="train")
    assert (everything(source)[1], source.class_names) == ([*CLASSES, *CLASSES], ("a", "b", "c"))
    assert everything(HuggingFace(species, (1, 6, 5), test="train", label=False))[1] is None
    named = HuggingFace(species, (1, 6, 5), label="species")
    assert (everything(named)[1], named.class_names) == ([1, 0, 0, 1, 0] * 4, ("cat", "dog"))
    unknown = HuggingFace(species, (1, 6, 5))
    assert (everything(unknown)[1], unknown.class_names) == (None, ())
    assert "species: without labels, because some of label are unknown" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label": "label"}, "label=label: has labels that are unknown, missing or below 0; data.source.label=false"),
        ({"label": "id"}, "label=id: has labels that are unknown, missing or below 0; data.source.label=false leaves"),
        (
            {"label": "score"},
            "label=score: must be whole numbers from 0 or names, got float32; data.source.label=false",
        ),
        ({"label": "date"}, "but go up to 20240103 for 20 images. .* leave them out with data.source.label=false"),
        ({"image": "species"}, "image=species: must be a column of images, not of string"),
        ({"test": "torn"}, "species: image 9 is missing"),
    ],
)
def test_columns_that_cannot_be_used(species: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        everything(HuggingFace(species, (1, 6, 5), **options))


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


def test_without_the_hubs_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install vae-lightning\[huggingface\]"):
        HuggingFace("x", (3, 8, 8)).prepare(Path())
