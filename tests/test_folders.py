"""A user's folder of images: which files, which sizes, decoded once."""

import io
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from shared import TINY, UNDRAWN, run_command
from written_images import BLUE, GREEN, RED, everything, saved, write_images

from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.folder import Folder
from vae_lightning.errors import DataError

pytestmark = pytest.mark.usefixtures("cache")


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


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    """As of archives from other systems."""
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    write_images(Path(folder), 3)
    write_images(tmp_path / "bar", 3)
    source = Folder(str(tmp_path))
    assert everything(source)[0].shape == (6, 3, 20, 16)
    assert source.class_names == ("bar", "caf�")
    Path(folder, "000.png").write_bytes(b"broken")
    with pytest.raises(DataError, match="caf�/000.png is not an image"):
        everything(Folder(str(tmp_path)))


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("train", "val"), ("Train", "TEST")])
def test_folders_for_training_and_testing(
    tmp_path: Path, train: str, test: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_images(tmp_path / train / "a", 3, colour=RED)
    write_images(tmp_path / train / "b", 2, colour=GREEN)
    write_images(tmp_path / test / "b", 2, colour=GREEN)
    write_images(tmp_path / "more", 1)
    source = Folder(str(tmp_path))
    source.prepare(Path())
    kept, held = source.load(Path(), train=True), source.load(Path(), train=False)
    assert (kept.labels.tolist(), held.labels.tolist()) == ([0, 0, 0, 1, 1], [1, 1])
    assert held.images[0, :, 0, 0].tolist() == list(GREEN)
    assert f"only train and {test.lower()} are used, not more" in caplog.text


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
        ("a.png", saved(Image.new("RGB", (4, 4), BLUE), "PNG", exif=b"no EXIF data"), BLUE),
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
    """One line trains on a folder named by a number; the resolved shape is kept with the run, which resumes by it."""
    for name in ("first", "second"):
        write_images(tmp_path / "2024" / name, 30, (12, 12))
    options = [option for option in TINY if not option.startswith(("data=", "data.source"))]
    line = ["data=folder", "data.source.path=2024", *options, *UNDRAWN, "hydra.run.dir=run"]
    done = run_command("vae_lightning.cli", *line, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "data       reading 60 images of 2024, once …" in done.stdout
    assert "data       2024: 54 images to train on" in done.stdout
    assert "image_shape:\n  - 3\n  - 12\n  - 12\n" in (tmp_path / "run" / "config.yaml").read_text()
    longer = run_command("vae_lightning.cli", *line, "trainer.max_epochs=3", "resume=true", cwd=tmp_path)
    assert (longer.returncode, longer.stderr) == (0, "")
    assert "reading" not in longer.stdout
    made = run_command("vae_lightning.generate", "reconstruct", "run", "--test", "4", "-o", "out.png", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    assert Image.open(tmp_path / "out.png").mode == "RGB"
