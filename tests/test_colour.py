"""Colour and large images: what is drawn, measured and decoded is right, and stays bounded."""

import io
import json
import math
import re
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from PIL import Image
from shared import TINY, UNMEASURED, compose_config, run_command
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.sizes import at_most, at_once, shrunk
from vae_lightning.data.sources import Split
from vae_lightning.metrics.bounds import importance_weighted_bound
from vae_lightning.metrics.codes import decode_all
from vae_lightning.metrics.probes import pixels
from vae_lightning.runs import Run

COLOURS = {"blue": (40, 60, 220), "green": (30, 200, 60), "red": (220, 40, 30)}
OPTIONS = [option for option in TINY if not option.startswith("data=") and "data.source" not in option]
OPTIONS.append("data=folder")


def write_pictures(folder: Path, per_class: int, size: tuple[int, int] = (40, 40)) -> None:
    """A folder per colour, of pictures that differ a little."""
    generator = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            picture = colour + generator.normal(0, 8, (*size, 3))
            Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number}.png")


def nearest(images: np.ndarray) -> list[int]:
    """The colour that each of the images `(…, 3, H, W)` has on average, by its place in `COLOURS`."""
    means = images.reshape(-1, *images.shape[-3:]).mean((2, 3))
    return np.abs(means[:, None] - np.array(list(COLOURS.values()))[None]).sum(2).argmin(1).tolist()


def has_colour(picture: Image.Image, colour: tuple[int, int, int], tolerance: int = 30) -> bool:
    found = np.abs(np.asarray(picture.convert("RGB")).astype(int) - colour).max(2) <= tolerance
    return found.mean() > 0.01


def test_bits_per_dimension_of_a_run_in_colour(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 20)
    likelihood = ["model/likelihood=logistic_mixture", "model.likelihood.components=3", "trainer.max_epochs=1"]
    options = ["data.source.path=pictures", "data.source.size=32", "hydra.run.dir=run"]
    done = run_command("vae_lightning.cli", *OPTIONS, *UNMEASURED, *likelihood, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = Run(tmp_path / "run").metrics
    assert metrics["test/bits_per_dim"] == pytest.approx(-metrics["test/elbo"] / (3 * 32 * 32 * math.log(2)), rel=1e-5)
    # No model can do with fewer than the noise of standard deviation 8 takes.
    assert math.log2(8 * math.sqrt(2 * math.pi * math.e)) < metrics["test/bits_per_dim"] < 10


@pytest.mark.slow
def test_a_run_in_colour_shows_its_colours_everywhere(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 30)
    options = ["data.source.path=pictures", "data.source.size=32", "trainer.max_epochs=15", "hydra.run.dir=run"]
    options += ["data.batch_size=16", "model.optimizer.lr=0.01", "~callbacks.measurements"]
    options += ["callbacks.grids.images=64", "callbacks.figures.reconstructions=20"]
    options = [option for option in OPTIONS if "measurements" not in option] + options
    done = run_command("vae_lightning.cli", *options, "callbacks.grids.every_n_batches=5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = Run(tmp_path / "run")
    with np.load(run.arrays_file) as arrays:
        assert nearest(arrays["originals"]) == arrays["labels"][: len(arrays["originals"])].tolist()
        assert nearest(arrays["reconstructions"]) == nearest(arrays["originals"])
    with np.load(run.explorer_file) as explorer:
        assert nearest(explorer["images"]) == explorer["labels"].tolist()
        assert explorer["lattice"].shape == (9, 9, 3, 32, 32)
        assert set(nearest(explorer["lattice"])) == {0, 1, 2}
    reconstructions = Image.open(run.figures / "reconstructions.png")
    assert all(has_colour(reconstructions, colour) for colour in COLOURS.values())
    grid = Image.open(run.grids()[max(run.grids())])
    assert (grid.mode, grid.size) == ("RGB", (8 * 33 + 1, 8 * 33 + 1))
    assert sum(has_colour(grid, colour, 60) for colour in COLOURS.values()) >= 2

    events = EventAccumulator(str(run.folder / "tensorboard"), size_guidance={"images": 0}).Reload()
    last = events.Images("samples during training")[-1].encoded_image_string
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(last))), np.asarray(grid))


def test_large_images_go_through_a_model_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (at_once((1, 28, 28)), at_once((3, 32, 32)), at_once((3, 64, 64)), at_once((3, 128, 128))) == (
        1000, 1000, 682, 170,
    )  # fmt: skip
    assert [at_once((1, 28, 28), torch.device(kind)) for kind in ("cpu", "cuda")] == [1000, 8000]
    assert at_most(2**29, (3, 128, 128)) == 2730
    assert at_most(10, (3, 128, 128)) == 1
    model = instantiate(compose_config(*TINY, "data.image_shape=[3,32,48]").model, _convert_="all").eval()
    codes = torch.randn(3, 5, 2)
    whole = model.decode(codes).mean
    sizes: list[int] = []
    model.decoder.register_forward_hook(lambda _, inputs, __: sizes.append(inputs[0].shape[:-1].numel()))
    monkeypatch.setattr("vae_lightning.data.sizes.AT_ONCE", 4 * 4 * whole[0, 0].numel())
    torch.testing.assert_close(decode_all(model, codes, (3, 32, 48)), whole)
    assert sizes == [4, 4, 4, 3]
    sizes.clear()
    importance_weighted_bound(model, Batch(torch.rand(2, 3, 32, 48)), samples=5)
    assert sizes == [4, 4, 2]  # two images, and as many samples as fit


def test_shrunk_images_are_averages() -> None:
    images = torch.rand(2, 3, 128, 96)
    assert shrunk(images, 128) is images
    small = shrunk(images, 64)
    assert small.shape == (2, 3, 64, 48)
    torch.testing.assert_close(small[0, 1, 5, 7], images[0, 1, 10:12, 14:16].mean())
    assert shrunk(torch.ones(1, 1, 66, 100), 32).shape == (1, 1, 17, 25)
    assert shrunk(torch.ones(1, 1, 66, 98), 32).unique().tolist() == [1]  # at the edges, of the pixels that there are
    assert pixels(torch.rand(4, 3, 32, 32)).shape == (4, 3 * 32 * 32)
    assert pixels(torch.rand(4, 3, 128, 128)).shape == (4, 3 * 32 * 32)


class Grey:
    """128 × 128 images in colour, of which the n-th has the value n."""

    class_names = ()
    image_shape = (3, 128, 128)

    def prepare(self, root: Path) -> None: ...

    def load(self, root: Path, train: bool) -> Split:
        values = torch.arange(7 if train else 5, dtype=torch.uint8)
        return Split(values.view(-1, 1, 1, 1).expand(-1, *self.image_shape).contiguous(), None)


def test_examples_are_bounded_and_numbered(monkeypatch: pytest.MonkeyPatch) -> None:
    data = ImageDataModule("grey", Grey(), eval_batch_size=None, scale=255)
    data.setup()
    assert data.eval_batch_size == 170
    assert ImageDataModule("grey", Grey(), eval_batch_size=400).eval_batch_size == 400
    numbers = data.chosen("test", 3)
    images, _ = data.examples("test", 3)
    assert (images[:, 0, 0, 0] * 255).round().tolist() == numbers.tolist()
    assert (data.numbered("test", torch.tensor([4, 1])).images[:, 0, 0, 0] * 255).round().tolist() == [4, 1]
    monkeypatch.setattr("vae_lightning.data.datamodule.EXAMPLES", 2 * images[0].nbytes)
    assert len(data.examples("test", 5).images) == 2


@pytest.mark.slow
def test_a_run_at_128_pixels_is_drawn_and_stays_small(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 20, (130, 150))
    options = [
        "data.source.path=pictures",
        "data.source.size=128",
        "hydra.sweep.dir=sweep",
        "callbacks.explorer.cells=41",
    ]
    grids = ["callbacks.grids.images=9", "model.latent_dim=2,16", "--multirun"]
    done = run_command("vae_lightning.cli", *OPTIONS, *options, *grids, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("latent_dim-2", "latent_dim-16"):
        run = Run(tmp_path / "sweep" / name)
        assert run.config["model"]["encoder"]["image_shape"] == [3, 128, 128]
        with np.load(run.explorer_file) as explorer:
            assert explorer["lattice"].shape == (26, 26, 3, 64, 64)
            assert explorer["lattice"].nbytes <= 8 * 2**20
            assert nearest(explorer["images"]) == explorer["labels"].tolist()
            present = [list(COLOURS.values())[label] for label in set(explorer["labels"].tolist())]
        assert Image.open(run.grids()[max(run.grids())]).size == (3 * 66 + 2, 3 * 66 + 2)
        reconstructions = Image.open(run.figures / "reconstructions.png")
        assert len(present) > 1
        assert all(has_colour(reconstructions, colour) for colour in present)
        assert max(reconstructions.size) < 2000

    page = (tmp_path / "sweep" / "report" / "index.html").read_text()
    assert len(page) < 4_000_000
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.DOTALL)[1])
    for found in data["runs"]:
        sheet = Image.open(io.BytesIO(b64decode(data["sheets"][found["explorer"]["images"]["sheet"]].split(",")[1])))
        columns = found["explorer"]["images"]["columns"]
        for number, label in enumerate(found["explorer"]["labels"]):
            x, y = 64 * (number % columns), 64 * (number // columns)
            tile = np.asarray(sheet.convert("RGB").crop((x, y, x + 64, y + 64))).transpose(2, 0, 1)
            assert nearest(tile[None]) == [label]

    run = tmp_path / "sweep" / "latent_dim-2"
    picture = tmp_path / "pictures" / "red" / "0.png"
    for verb, *rest in [
        ("sample", "--count", "4"), ("reconstruct", picture), ("interpolate", picture, "1", "--steps", "5"),
        ("traverse", "--steps", "5"), ("lattice", "--cells", "3"),
    ]:  # fmt: skip
        command = [verb, str(run), *map(str, rest), "-o", f"{verb}.png"]
        done = run_command("vae_lightning.generate", *command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        made = Image.open(tmp_path / f"{verb}.png")
        assert (made.mode, (made.width - 4) % 132) == ("RGB", 0)
    assert has_colour(Image.open(tmp_path / "reconstruct.png"), COLOURS["red"])
