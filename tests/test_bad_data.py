"""What is wrong with a user's data is told in a line or two."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from shared import compose_config
from written_images import CLASSES, PIXELS, RED, everything, saved, write_images

from vae_lightning import train
from vae_lightning.config.messages import explain_failure
from vae_lightning.data.folder import Folder
from vae_lightning.data.sources import DataError
from vae_lightning.errors import UsageError

pytestmark = pytest.mark.usefixtures("cache")
PNG = saved(Image.new("RGB", (4, 4), RED), "PNG")
JPEG = saved(Image.effect_noise((64, 64), 50), "JPEG")
PALETTE = Image.effect_noise((60, 60), 50).convert("P")
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


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


GOOD = both(write("1.png", PNG), write("2.png", PNG), write("3.png", PNG))
FOLDER = ["data=folder", "data.source.path=data"]
ARRAYS = ["data=arrays", "data.source.path=data/a.npz"]

BAD: dict[str, tuple[Change, list[str], str]] = {
    "no path": (GOOD, ["data=folder"], "data.source.path has no value"),
    "no such folder": (GOOD, ["data=folder", "data.source.path=nowhere"], "nowhere: there is no such folder"),
    "a file as folder": (GOOD, ["data=folder", "data.source.path=data/1.png"], "is not a folder"),
    "an empty folder": (lambda folder: (folder / "data").mkdir(), FOLDER, "no images in it; known are PNG, JPEG"),
    "no image": (write("a.txt", "text"), FOLDER, "no images in it"),
    "one image": (write("a.png", PNG), FOLDER, "there must be at least one to train on and one to test on"),
    "a text called .png": (both(GOOD, write("4.png", "no picture")), FOLDER, "4.png is not an image in a known format"),
    "an empty file": (both(GOOD, write("4.png", "")), FOLDER, "4.png is not an image"),
    "half a PNG": (both(GOOD, write("4.png", half(PNG))), FOLDER, "4.png"),
    "half a PNG with a palette": (both(GOOD, write("4.png", half(saved(PALETTE, "PNG")))), FOLDER, "4.png is damaged"),
    "half a GIF": (both(GOOD, write("4.gif", half(saved(PALETTE, "GIF")))), FOLDER, "4.gif is damaged"),
    "half a JPEG": (both(GOOD, write("4.jpg", half(JPEG))), FOLDER, "4.jpg is damaged"),
    "a picture of 2.5 billion pixels": (both(GOOD, write("4.png", huge_png())), FOLDER, "4.png has"),
    "all broken": (both(write("1.png", "a"), write("2.png", "b")), FOLDER, "2 of 2 images cannot be read"),
    "floats beyond 1": (both(GOOD, write("4.tif", saved(SEVENS, "TIFF"))), FOLDER, "from 7 to 7, outside 0 to 1"),
    "a link out of the folder": (both(GOOD, link("4.png", "outside/x.png")), FOLDER, "4.png is a link out of the"),
    "a text beside images": (
        both(GOOD, write("a.txt", ""), link("b.txt", "outside/x.png"), write("4.png", "")), FOLDER, "1 of 4 images"
    ),
    "a link to a folder": (both(GOOD, link("more", "data")), FOLDER, "more is a link to a folder"),
    "a link to itself": (both(GOOD, link("4.png", "data/4.png")), FOLDER, "4.png is not a file"),
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
    "labels below 0": (save("a.npz", images=PIXELS, labels=CLASSES - 1), ARRAYS, "from 0 or names, got -1;"),
    "labels that are dates": (
        save("a.npz", images=PIXELS, labels=CLASSES + 20_240_101), ARRAYS, "go up to 20240103 for 10 images."
    ),
    "broken labels": (save("a.npz", images=PIXELS, labels=CLASSES / 2), ARRAYS, "from 0 or names, got 0.5;"),
    "one-hot labels": (save("a.npz", images=PIXELS, labels=np.eye(10)), ARRAYS, "got shape [10, 10]"),
    "factors of another length": (save("a.npz", images=PIXELS, factors=np.ones((9, 2))), ARRAYS, "(10, K), a row"),
    "factors that are one": (save("a.npz", images=PIXELS, factors=np.ones(10)), ARRAYS, "for each image, got [10]"),
    "infinite factors": (save("a.npz", images=PIXELS, factors=np.full((10, 2), np.inf)), ARRAYS, "must be finite"),
    "factors in words": (save("a.npz", images=PIXELS, factors=np.full((10, 2), "a")), ARRAYS, "must be numbers"),
    "unknown factors": (save("a.npz", images=PIXELS), [*ARRAYS, "data.source.factors=x"], "of the factors, got x"),
    "too few names of factors": (
        save("a.npz", images=PIXELS, factors=np.ones((10, 2))),
        [*ARRAYS, "data.source.factor_names=[size]"],
        "data.source.factor_names: must be one for each of the 2 factors in data/a.npz, got size",
    ),
    "a category that is no factor": (
        save("a.npz", images=PIXELS, factors=np.ones((10, 2))),
        [*ARRAYS, "data.source.categorical_factors=[hue]"],
        "must be names of factors in data/a.npz, which has 1, 2; got hue",
    ),
    "unknown names": (save("a.npz", one=PIXELS, two=PIXELS), ARRAYS, "the name of the images, got null; the file has"),
    "another name": (save("a.npz", images=PIXELS), [*ARRAYS, "data.source.images=x"], "got x; the file has images"),
    "no such data set": (GOOD, ["data=torchvision", "data.source.dataset=CIFAR11"], "data.source.dataset: must be"),
    "a data set without a name": (GOOD, ["data=huggingface"], "data.source.name has no value"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    change, (data, *options), message = BAD[case]
    change(tmp_path)
    monkeypatch.chdir(tmp_path)
    quick = ["model=mlp", "callbacks=none", "logger=none"]
    with pytest.raises((UsageError, DataError)) as caught:
        train(compose_config(data, *quick, "trainer.max_epochs=1", "trainer.accelerator=cpu", *options))
    said = explain_failure(caught.value, "run", 64)
    assert message in said
    assert len(said.splitlines()) <= 4


def test_a_command_tells_it_in_a_line(tmp_path: Path, vae_train: Callable[..., Any]) -> None:
    BAD["no image"][0](tmp_path)
    done = vae_train(*FOLDER, "callbacks=none", "logger=none")
    assert done.returncode == 2
    assert done.stderr.startswith("data.source.path=data: no images in it; known are PNG, JPEG")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "outputs").exists()


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
    everything(Folder(str(tmp_path), on_error="skip", test_share=0.5))  # from the cache
    assert caplog.text.count("left out: 12 of 20 images cannot be read") == 2


def test_what_may_not_be_read_is_named_and_read_once_it_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A file and a folder, of which the superuser would know nothing."""
    write_images(tmp_path, 4)
    write_images(tmp_path / "locked", 4)
    scandir, access = os.scandir, os.access

    def refuse(path: str | int) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        patch.setattr(os, "access", lambda path, mode: not path.endswith("003.png") and access(path, mode))
        with pytest.raises(DataError, match="locked/: permission denied; data.source.on_error=skip leaves it out"):
            everything(Folder(str(tmp_path)))
        assert len(everything(Folder(str(tmp_path), on_error="skip", size=8))[0]) == 3
        assert "left out: locked/: permission denied" in caplog.text
        assert "003.png permission denied" in caplog.text
        (tmp_path / "locked").rename(tmp_path / ".hidden")
        with pytest.raises(DataError, match="003.png permission denied"):
            everything(Folder(str(tmp_path)))
    assert len(everything(Folder(str(tmp_path), on_error="skip", size=8))[0]) == 4


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
