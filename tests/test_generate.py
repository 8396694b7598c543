"""Trained runs loaded and put to use, as their owner would and as somebody would who does not trust them."""

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from shared import TINY, UNDRAWN, run_command
from torch.distributions import Normal

from vae_lightning import load_run
from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.errors import UsageError
from vae_lightning.generate import latent_pictures
from vae_lightning.generate.images import encode
from vae_lightning.posteriors import point

Command = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    options = ["--multirun", "model.latent_dim=1,2,3", "hydra.sweep.dir=sweep"]
    done = run_command("vae_lightning.cli", *TINY, *UNDRAWN, *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "sweep"


@pytest.fixture
def foreign(sweep: Path, tmp_path: Path) -> Path:
    """A run that its test may spoil."""
    return Path(shutil.copytree(sweep / "latent_dim-2", tmp_path / "foreign"))


def test_a_run_is_loaded_as_it_was_tested(sweep: Path) -> None:
    run = load_run(sweep / "latent_dim-3")
    assert (run.name, run.image_shape) == ("latent_dim-3", (1, 28, 28))
    assert not run.model.training
    assert run.model.sample(5).shape == (5, 1, 28, 28)
    images, _ = run.test_images(1000)
    assert len(images) == 40
    error = (run.model.reconstruct(images) - images).square().mean().item()
    assert error == pytest.approx(run.metrics["test/mse"], rel=1e-4)


@pytest.mark.parametrize("latent_dim", [1, 2, 3])
def test_every_verb_does_what_it_says(sweep: Path, generate: Command, tmp_path: Path, latent_dim: int) -> None:
    run = sweep / f"latent_dim-{latent_dim}"

    def make(*arguments: object) -> str:
        done = generate(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert make("sample", run) == "sample.png: 64 images\n"
    assert Image.open(tmp_path / "sample.png").size == (8 * 29 + 1, 8 * 29 + 1)
    make("sample", run, "-n", "1200", "-o", "many.npz", "--temperature", "0")
    samples = np.load(tmp_path / "many.npz")["images"]
    assert samples.shape == (1200, 1, 28, 28)
    assert (samples == samples[0]).all()
    assert make("reconstruct", run, "--test", "1", "-o", "one.png") == "one.png: 1 image, reconstructions below\n"
    assert make("reconstruct", run, "--test", "13") == "reconstruct.png: 13 images, reconstructions below\n"
    assert Image.open(tmp_path / "reconstruct.png").size == (10 * 29 + 1, 4 * 29 + 1)
    make("encode", run, "--test", "7", "-o", "codes.csv")
    rows = list(csv.DictReader((tmp_path / "codes.csv").open()))
    loaded = load_run(run)
    images, labels = loaded.test_images(7)
    means = loaded.model.encode(images).mean
    found = [[float(row[f"mean_{j + 1}"]) for j in range(latent_dim)] for row in rows]
    np.testing.assert_allclose(found, means, atol=1e-5)
    assert [row["class"] for row in rows] == [loaded.data.class_names[label] for label in labels]
    make("interpolate", run, "0", "5", "--steps", "6", "-o", "path.npz")
    ends = loaded.model.encode(loaded.test_images(1000)[0][[0, 5]]).mean
    expected = loaded.model.decode(torch.lerp(ends[0], ends[1], torch.linspace(0, 1, 6)[:, None])).mean
    np.testing.assert_allclose(np.load(tmp_path / "path.npz")["images"] / 255, expected, atol=0.003)
    make("interpolate", run, "0", "5", "--spherical", "-o", "path.gif")
    assert Image.open(tmp_path / "path.gif").n_frames > 1
    make("traverse", run, "--steps", "5", "--dimensions", "1", "--image", "3")
    assert Image.open(tmp_path / "traverse.png").size == (5 * 29 + 1, 30)
    make("traverse", run, "-o", "traverse.gif")
    if latent_dim <= 2:
        make("lattice", run, "--cells", "4", "-o", "lattice.npz")
        cells = np.load(tmp_path / "lattice.npz")["images"]
        corner = loaded.model.decode(torch.tensor([[-3.0, 3.0][:latent_dim]])).mean
        np.testing.assert_allclose(cells[0] / 255, corner[0], atol=0.003)
        assert len(cells) == 4**latent_dim
        both = generate("lattice", run, "--quantiles", "--extent", "8", "-o", "both.npz")
        assert (both.returncode, "--extent 8: steps of --quantiles are equally likely" in both.stderr) == (2, True)
    else:
        assert "a lattice needs a latent space of 1 or 2 dimensions, not 3" in generate("lattice", run).stderr
    make("export", run, "-o", "weights.pt")
    assert torch.load(tmp_path / "weights.pt", weights_only=True).keys() == loaded.model.state_dict().keys()


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["bernoulli", "continuous_bernoulli", "discretized_logistic", "gaussian"])
def test_exported_models_run_elsewhere(generate: Command, tmp_path: Path, likelihood: str) -> None:
    import onnxruntime

    options = ["hydra.run.dir=run", f"model/likelihood={likelihood}", "model/prior=vamp", "model.prior.components=4"]
    assert run_command("vae_lightning.cli", *TINY, *options, cwd=tmp_path).returncode == 0
    done = generate("export", "run", "-o", "model.onnx")
    assert done.returncode == 0, done.stderr
    assert "images to mean and stddev" in done.stdout
    model = load_run(tmp_path / "run").model
    session = onnxruntime.InferenceSession(tmp_path / "model-decoder.onnx")
    codes = torch.randn(11, model.latent_dim)
    (found,) = session.run(None, {"codes": codes.numpy()})
    np.testing.assert_allclose(found, model.decode(codes).mean, atol=1e-4)


def test_images_of_any_kind_are_read(sweep: Path, foreign: Path, generate: Command, tmp_path: Path) -> None:
    Image.new("RGBA", (61, 40), (200, 10, 10, 128)).save(tmp_path / "colour.png")
    Image.new("L", (28, 28), 77).save(tmp_path / "grey.jpg")
    done = generate("reconstruct", sweep / "latent_dim-2", "colour.png", "grey.jpg", "-o", "out.npz")
    assert done.returncode == 0, done.stderr
    assert "colour.png: cropped and resized from 61 × 40 to 28 × 28 pixels" in done.stdout
    assert "grey.jpg" not in done.stdout
    assert np.load(tmp_path / "out.npz")["images"][1] == pytest.approx(77, abs=1)
    config = OmegaConf.load(foreign / "config.yaml")
    config.data.scale = 510  # as the run's own pixels were divided by
    OmegaConf.save(config, foreign / "config.yaml")
    generate("reconstruct", foreign, "grey.jpg", "-o", "half.npz")
    assert np.load(tmp_path / "half.npz")["images"][0] == pytest.approx(38, abs=1)
    config.data.binarize = "dynamic"
    OmegaConf.save(config, foreign / "config.yaml")
    generate("reconstruct", foreign, "grey.jpg", "-o", "binary.npz")
    binary = np.load(tmp_path / "binary.npz")["images"][0]
    assert set(np.unique(binary)) == {0, 255}
    assert binary.mean() == pytest.approx(38, abs=12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "{run}", "-o", "x.jpg"], "-o x.jpg: the suffix must be one of .png .gif .npz"),
        (["sample", "{run}", "-o", "no/x.png"], "there is no folder no"),
        (["sample", "nowhere"], "nowhere: no such folder"),
        (["sample", "{run}/.."], "this is a sweep; name one of the runs in it"),
        (["sample", "."], "there is no run in this folder"),
        (["sample", "{run}", "--temperature", "nan"], "argument --temperature: must be a number, not nan"),
        (["lattice", "{run}", "--extent", "-1"], "argument --extent: must be a number above 0, not -1"),
        (["traverse", "{run}", "--extent", "inf"], "argument --extent: must be a number, not inf"),
        (["sample", "{run}", "-n", "0"], "argument -n/--count: must be a whole number of at least 1, not 0"),
        (["dream", "{run}"], "invalid choice: 'dream'"),
        (["reconstruct", "{run}", "missing.png"], "missing.png: no such file"),
        (["reconstruct", "{run}", "text.png"], "text.png: cannot be read as an image"),
        (["interpolate", "{run}", "0", "4000"], "4000: there are 40 test images, from 0 to 39"),
        (["traverse", "{run}", "--dimensions", "0,9"], "--dimensions 0,9: must be whole numbers from 1 to 2"),
        (["sample", "{run}", "-o", "there.png"], "there.png exists already; overwrite it with --force"),
        (["sample", "{run}", "--device", "toaster"], "--device toaster: must be one of cpu, cuda"),
        (["sample", "{run}", "--device", "meta"], "--device meta: there is no META device here; use --device cpu"),
        (["encode", "{run}", "--tets", "5"], "unrecognized arguments: --tets"),
        (["sample", "{run}", "a.png"], "unrecognized arguments: a.png"),
    ],
)
def test_wrong_commands(sweep: Path, generate: Command, tmp_path: Path, arguments: list[str], message: str) -> None:
    (tmp_path / "text.png").write_text("=not an image")
    (tmp_path / "there.png").touch()
    done = generate(*(argument.format(run=sweep / "latent_dim-2") for argument in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.accelerator.is_available(), reason="has a device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "mps"])
def test_a_device_that_is_not_there(sweep: Path, generate: Command, device: str) -> None:
    done = generate("sample", sweep / "latent_dim-2", "--device", device)
    name = device.partition(":")[0].upper()
    said = f"vae-generate sample: --device {device}: there is no {name} device here; use --device cpu\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_images_may_follow_options(sweep: Path, generate: Command, tmp_path: Path) -> None:
    for name, value in [("a.png", 20), ("b.png", 200)]:
        Image.new("L", (28, 28), value).save(tmp_path / name)
    done = generate("reconstruct", sweep / "latent_dim-2", "-o", "x.npz", "a.png", "b.png")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "x.npz")["images"][:, 0, 0, 0].tolist() == [20, 200]
    done = generate("encode", "--force", sweep / "latent_dim-2", "--test", "5", "a.png")
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "encode.npz")["names"].tolist() == ["a.png"]


def test_images_without_labels(sweep: Path, generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlabelled(self: ImageDataModule, name: str, numbers: torch.Tensor) -> Batch:
        return Batch(torch.rand(len(numbers), 1, 28, 28))

    monkeypatch.setattr(ImageDataModule, "numbered", unlabelled)
    run = sweep / "latent_dim-2"
    assert generate("encode", run, "--test", "3", "-o", "codes.csv").returncode == 0
    assert [row["class"] for row in csv.DictReader((tmp_path / "codes.csv").open())] == ["", "", ""]
    for arguments in (["reconstruct", run], ["interpolate", run, "0", "5"], ["traverse", run, "--image", "3"]):
        assert generate(*arguments).returncode == 0


MINE = """
import torch
from torch.distributions import Independent, MultivariateNormal, Normal, TransformedDistribution
from torch.distributions.transforms import ComposeTransform, AffineTransform, TanhTransform
from vae_lightning.architectures.conv import ConvDecoder, ConvEncoder

class Full(ConvEncoder):
    def forward(self, x):
        q = super().forward(x)
        lower = torch.ones(q.mean.shape[-1], q.mean.shape[-1]).tril(-1)
        return MultivariateNormal(q.mean, scale_tril=torch.diag_embed(q.stddev) + lower, validate_args=False)

class Flow(ConvEncoder):
    def forward(self, x):
        q = super().forward(x)
        base = Independent(Normal(q.mean, q.stddev, validate_args=False), 1, validate_args=False)
        return TransformedDistribution(base, [TanhTransform()], validate_args=False)

class Labelled(ConvEncoder):
    conditional = True

    def forward(self, x, labels):
        q = super().forward(x)
        shift = 0 if labels is None else 10.0 * labels[:, None]
        return Independent(Normal(q.mean + shift, q.stddev), 1)

class LabelledDecoder(ConvDecoder):
    conditional = True

    def forward(self, z, labels):
        return super().forward(z if labels is None else z - 10.0 * labels[:, None])
"""


@pytest.fixture
def mine(foreign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """A run whose encoder, and decoder, is of a module elsewhere."""

    def make(encoder: str, decoder: str = "") -> Path:
        (tmp_path / "own_parts.py").write_text(MINE)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "own_parts", raising=False)
        config = OmegaConf.load(foreign / "config.yaml")
        config.model.encoder["_target_"] = f"own_parts.{encoder}"
        if decoder:
            config.model.decoder["_target_"] = f"own_parts.{decoder}"
        OmegaConf.save(config, foreign / "config.yaml")
        return foreign

    return make


@pytest.mark.parametrize("posterior", ["Full", "Flow"])
def test_any_posterior_works_in_every_verb(
    mine: Callable[..., Path], generate: Command, tmp_path: Path, posterior: str
) -> None:
    run = mine(posterior)
    for verb in ("sample", "reconstruct", "encode", "traverse", "lattice"):
        done = generate(verb, run, "--trust", "own_parts")
        assert done.returncode == 0, done.stderr
    assert generate("interpolate", run, "0", "5", "--trust", "own_parts").returncode == 0
    assert generate("traverse", run, "--image", "2", "--trust", "own_parts", "--force").returncode == 0
    codes = np.load(tmp_path / "encode.npz")
    assert np.isfinite(codes["means"]).all()
    assert (codes["stddevs"] > 0).all()
    model = load_run(run, trust=["own_parts"]).model
    images, _ = load_run(run, trust=["own_parts"]).test_images(20)
    drawn = model.encode(images).sample((4000,))
    np.testing.assert_allclose(codes["stddevs"], drawn.std(0), rtol=0.25)
    if posterior == "Flow":
        np.testing.assert_allclose(codes["means"], model.encode(images).base_dist.mean.tanh(), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoder", "decoder", "outputs"),
    [("Full", "", ["mean", "stddev"]), ("Flow", "", ["mean"]), ("Labelled", "LabelledDecoder", ["mean", "stddev"])],
)
def test_any_posterior_is_exported(
    mine: Callable[..., Path], generate: Command, tmp_path: Path, encoder: str, decoder: str, outputs: list[str]
) -> None:
    import onnxruntime

    run = mine(encoder, decoder)
    done = generate("export", run, "-o", "model.onnx", "--trust", "own_parts")
    assert done.returncode == 0, done.stderr
    assert ("without stddev, which cannot be exported" in done.stdout) == (outputs == ["mean"])
    session = onnxruntime.InferenceSession(tmp_path / "model-encoder.onnx")
    assert [output.name for output in session.get_outputs()] == outputs
    assert Normal(0.0, 1.0)._validate_args  # as before
    loaded = load_run(run, trust=["own_parts"])
    images, labels = loaded.test_images(3)
    labels = labels if decoder else None
    given = {"images": images.numpy()} | ({"labels": labels.numpy()} if decoder else {})
    np.testing.assert_allclose(session.run(None, given)[0], point(loaded.model.encode(images, labels)), atol=1e-4)
    assert len(onnxruntime.InferenceSession(tmp_path / "model-decoder.onnx").get_inputs()) == (2 if decoder else 1)


@pytest.mark.slow
def test_a_model_that_cannot_be_exported_says_so(
    sweep: Path, generate: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one whose code is random: its ONNX file computes something else."""
    monkeypatch.setattr("vae_lightning.generate.export.point", lambda posterior: posterior.sample())
    done = generate("export", sweep / "latent_dim-2")
    assert done.returncode == 2
    assert "this model cannot be exported as ONNX: " in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("*.onnx"))


def test_labels_reach_a_conditional_model(mine: Callable[..., Path], generate: Command, tmp_path: Path) -> None:
    run = mine("Labelled", "LabelledDecoder")
    trust = ["--trust", "own_parts"]
    loaded = load_run(run, trust=["own_parts"])
    images, labels = loaded.test_images(20)
    assert len(set(labels.tolist())) > 2
    unlabelled = loaded.model.encode(images).mean
    assert generate("encode", run, *trust).returncode == 0
    np.testing.assert_allclose(np.load(tmp_path / "encode.npz")["means"], unlabelled + 10 * labels[:, None], atol=1e-4)
    assert generate("reconstruct", run, "-o", "r.npz", *trust).returncode == 0
    expected = loaded.model.reconstruct(images)  # the decoder takes away what the encoder adds
    np.testing.assert_allclose(np.load(tmp_path / "r.npz")["reconstructions"] / 255, expected, atol=0.003)
    start, end = 0, int((labels != labels[0]).nonzero()[0])
    assert generate("interpolate", run, start, end, "--steps", "4", "-o", "i.npz", *trust).returncode == 0
    ends = np.load(tmp_path / "i.npz")["images"][[0, -1]] / 255
    np.testing.assert_allclose(ends, expected[[start, end]], atol=0.003)
    assert generate("traverse", run, "--image", "3", "--steps", "3", "-o", "t.npz", *trust).returncode == 0
    values = torch.tensor([-3.0, 0.0, 3.0])
    codes = loaded.model.latent_space.traverse(unlabelled[3] + 10 * labels[3], torch.arange(2), values).flatten(0, 1)
    expected = loaded.model.decode(codes, labels[3].expand(6)).mean
    found = np.load(tmp_path / "t.npz")["images"] / 255
    assert min(np.abs(found[:3] - expected[:3].numpy()).max(), np.abs(found[3:] - expected[:3].numpy()).max()) < 0.003


def test_the_functions_serve_python_users(sweep: Path) -> None:
    run = load_run(sweep / "latent_dim-2")
    images, labels = run.test_images(2)
    assert latent_pictures.interpolate(run.model, images, labels, steps=5).shape == (5, 1, 28, 28)
    assert latent_pictures.lattice(run.model, cells=3).shape == (3, 3, 1, 28, 28)
    assert latent_pictures.traverse(run.model, torch.zeros(2), [1], torch.zeros(4)).shape == (1, 4, 1, 28, 28)
    assert encode(run.model, images, labels).points.shape == (2, 2)
    with pytest.raises(UsageError, match="needs a latent space of 1 or 2 dimensions, not 3"):
        latent_pictures.lattice(load_run(sweep / "latent_dim-3").model)


def test_text_cells_are_no_formulas(sweep: Path, generate: Command, tmp_path: Path) -> None:
    name = "=cmd()|a.png"
    Image.new("L", (28, 28)).save(tmp_path / name)
    assert generate("encode", sweep / "latent_dim-2", name, "-o", "codes.csv").returncode == 0
    assert next(csv.DictReader((tmp_path / "codes.csv").open()))["image"] == f"'{name}"
