"""Labels for the encoder, the decoder and the prior: what they change, what is refused, and runs that have them."""

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from shared import TINY, compose_config, run_command
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.utils.data import TensorDataset

from vae_lightning import evaluate, load_run, plots, train
from vae_lightning.architectures.conditional import ClassVectors, Labels
from vae_lightning.callbacks import FinalFigures
from vae_lightning.data.batch import Batch
from vae_lightning.data.images import FetchedImages
from vae_lightning.errors import DataError, UsageError
from vae_lightning.generate import main
from vae_lightning.priors import ClassConditional
from vae_lightning.runs import Run
from vae_lightning.runs.loading import LoadedRun
from vae_lightning.vae import VAE

CONDITIONAL = ["model/labels=embedded"]
BARE = [option for option in TINY if not option.startswith(("callbacks.", "model."))]
SMALL = ["model.encoder.hidden=[32]", "model.decoder.hidden=[32]"]
Y = torch.tensor([0, 3, 9])


def build(*options: str) -> VAE:
    torch.manual_seed(0)
    return instantiate(compose_config("data=glyphs", *options).model, _convert_="all")


@pytest.mark.parametrize("likelihood", ["bernoulli", "logistic_mixture"])
@pytest.mark.parametrize("architecture", ["conv", "mlp", "resnet"])
def test_labels_reach_any_architecture(architecture: str, likelihood: str) -> None:
    model = build(f"model={architecture}", *CONDITIONAL, f"model/likelihood={likelihood}", "model.latent_dim=4")
    images = (torch.rand(3, 1, 28, 28) * 255).round() / 255
    terms = model.objective(model, Batch(images, Y))
    terms["loss"].mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    for vectors in (model.encoder.pictures, model.decoder.vectors):  # and those of no other class
        assert vectors.weight.grad.abs().sum(1).nonzero().flatten().tolist() == Y.tolist()
    model.eval()
    with torch.no_grad():
        one, other = (model.encode(images, labels).mean for labels in (Y, Y.flip(0)))
        assert not torch.allclose(one[0], other[0])
        torch.testing.assert_close(one[1], other[1])
        z = torch.randn(5, 2, 3, 4)  # samples in front of the batch
        pictures = model.decode(z, Y).mean
        assert pictures.shape == (5, 2, 3, 1, 28, 28)
        for row, label in enumerate(Y):
            alone = model.decode(z[:, :, row], label.expand(2)).mean
            torch.testing.assert_close(pictures[:, :, row], alone)
        assert not torch.allclose(pictures[..., 0, 0, :, :], model.decode(z, Y.flip(0)).mean[..., 0, 0, :, :])
        assert model.sample(4).shape == (4, 1, 28, 28)


def test_each_class_is_a_vector_and_an_unknown_one_their_mean() -> None:
    vectors = ClassVectors(3, 2)
    a, b, c = vectors.weight.detach()
    expected = torch.stack([c, (a + b + c) / 3, a])
    torch.testing.assert_close(vectors(torch.tensor([2, -1, 0])), expected)
    torch.testing.assert_close(vectors(None), expected[1])


def test_the_decoder_gets_code_and_vector_the_encoder_image_and_picture() -> None:
    seen: list[Tensor] = []

    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return x

    encoder, decoder = Labels((3, 4, 5), classes=2, channels=2, features=6)(Sees(), Sees())
    x, z, y = torch.rand(2, 3, 4, 5), torch.rand(7, 2, 3), torch.tensor([1, 0])
    encoder(x, y)
    decoder(z, y)
    encoder(x)
    assert torch.equal(seen[0][:, :3], x)
    assert torch.equal(seen[0][:, 3:].flatten(1), encoder.pictures.weight[y])
    assert torch.equal(seen[1][..., :3], z)
    assert torch.equal(seen[1][..., 3:], decoder.vectors.weight[y].expand(7, 2, 6))
    assert torch.equal(seen[2][0, 3:], seen[2][1, 3:])


def test_labels_are_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = Path(__file__).parent / "foreign"
    monkeypatch.syspath_prepend(foreign)
    with pytest.raises(Exception, match="Encoder is given labels already; choose model/labels=none"):
        instantiate(compose_config("data=glyphs", "model=own", *CONDITIONAL, config_dir=foreign).model, _convert_="all")
    for option in ("classes", "channels", "features"):
        with pytest.raises(ValueError, match=f"{option}: must be a whole number of at least 1, got 0"):
            Labels((1, 8, 8), **{option: 0})


def test_labels_are_learned_from() -> None:
    """Where the label alone determines the brightness, samples of a class are as bright as it."""
    model = build("model=mlp", *CONDITIONAL, "model.labels.classes=3", *SMALL, "model.optimizer.lr=0.005")
    labels = torch.arange(60) % 3
    images = (labels / 4 + 0.2).view(-1, 1, 1, 1).expand(-1, 1, 28, 28)
    (optimizer,) = model.configure_optimizers()
    for _ in range(60):
        optimizer.zero_grad()
        model.objective(model, Batch(images, labels))["loss"].mean().backward()
        optimizer.step()
    with torch.no_grad():
        seen = model.eval().sample(30, torch.arange(30) % 3).mean((1, 2, 3))
    for label in range(3):
        assert (seen[label::3] - (label / 4 + 0.2)).abs().max() < 0.05


def test_the_prior_of_a_class_and_the_mixture_of_all() -> None:
    prior = ClassConditional(4, classes=3).double()
    nn.init.normal_(prior.means)
    nn.init.normal_(prior.log_scales)
    z, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([2, 0, 0, 1, 2])
    densities = torch.stack(
        [
            (-0.5 * ((z - m) / s.exp()) ** 2 - s - 0.5 * math.log(2 * math.pi)).sum(1)
            for m, s in zip(prior.means, prior.log_scales, strict=True)
        ]
    )
    assert prior.distribution(y).batch_shape == (5,)
    torch.testing.assert_close(prior.distribution(y).log_prob(z), densities[y, torch.arange(5)])
    assert prior.distribution(None).batch_shape == ()
    torch.testing.assert_close(prior.distribution(None).log_prob(z), densities.exp().mean(0).log())
    model = build("model=mlp", "model/prior=class_conditional", "model.latent_dim=4")
    nn.init.normal_(model.prior.means)
    images = torch.rand(3, 1, 28, 28)
    posterior = model.encode(images)
    found = model.objective(model, Batch(images, Y))["rate"]
    expected = [
        kl_divergence(Normal(posterior.mean[i], posterior.stddev[i]), Normal(model.prior.means[y], 1)).sum()
        for i, y in enumerate(Y)
    ]
    torch.testing.assert_close(found, torch.stack(expected))


def test_samples_without_labels_are_of_all_classes_alike() -> None:
    model = build("model=mlp", *CONDITIONAL)
    assert model.conditional
    counts = model.draw_labels(5000).bincount(minlength=10)
    assert (counts - 500).abs().max() < 5 * 450**0.5
    plain = build("model=mlp")
    assert not plain.conditional
    assert plain.draw_labels(3) is None
    assert build("model=mlp", "model/prior=class_conditional").conditional
    with pytest.raises(ValueError, match="labels: must be 64, one for each sample, got 10"):
        model.sample(64, torch.arange(10))


@pytest.mark.parametrize("kind", ["stored", "part", "fetched"])
def test_a_share_of_the_labels_is_used_in_training(kind: str) -> None:
    data = instantiate(compose_config(*BARE, "data.labelled=0.25", "data.validation_size=16").data, _convert_="all")
    data.setup()
    images = data.splits["train"]
    if kind == "part":
        images = data.splits["train"] = images.subset(torch.arange(10, 80))
    elif kind == "fetched":
        images = data.splits["train"] = FetchedImages(TensorDataset(images.images, images.labels))
    kept = []
    for epoch in range(2):
        loader = data.train_dataloader()
        sampler = (loader.batches if kind != "fetched" else loader.batch_sampler).sampler
        sampler.set_epoch(epoch)
        batches, order = list(loader), sampler.order()
        labels = torch.cat([batch.labels for batch in batches])
        known = labels >= 0
        assert known.sum() == round(0.25 * len(images))
        assert torch.equal(labels[known], images.take(order).labels[known])
        assert (labels[~known] == -1).all()
        kept.append(order[known].sort().values)
    assert torch.equal(*kept)
    assert (images.take(torch.arange(len(images))).labels >= 0).all()  # which measurements use


def test_labels_are_dropped_anew_in_training_alone() -> None:
    data = instantiate(compose_config(*BARE, "data.label_dropout=0.3").data, _convert_="all")

    class Training:
        training = True

    data.trainer = Training()
    batch = Batch(torch.zeros(2000, 1, 2, 2, dtype=torch.uint8), torch.full((2000,), 4))
    one, other = (data.on_after_batch_transfer(batch, 0).labels for _ in range(2))
    assert set(one.tolist()) == {-1, 4}
    assert (one < 0).double().mean().item() == pytest.approx(0.3, abs=0.05)
    assert not torch.equal(one, other)
    Training.training = False
    assert torch.equal(data.on_after_batch_transfer(batch, 0).labels, batch.labels)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ([*CONDITIONAL, "model.labels.classes=7"], DataError, "model.labels.classes=7: .* set model.labels.classes=10"),
        (["model/prior=class_conditional", "model.prior.classes=12"], DataError, "set model.prior.classes=10"),
        (["data.labelled=0.5"], UsageError, "data.labelled=0.5: no part .* choose model/labels=embedded"),
        (["data.label_dropout=0.5"], UsageError, "data.label_dropout=0.5: no part of the model"),
        (["data.labelled=0.5", "model/prior=class_conditional"], UsageError, "prior needs the label of every image"),
        (["data.label_dropout=0.5", "model/prior=class_conditional"], UsageError, "needs the label of every image$"),
        (
            [*CONDITIONAL, "model/objective=m2", "data.label_dropout=0.5"],
            UsageError,
            "data.label_dropout=0.5: M2 infers hidden labels .* hide them with data.labelled",
        ),
        (["data.labelled=0"], UsageError, "data.labelled=0: must be a share greater than 0"),
        (["data.label_dropout=1"], UsageError, "data.label_dropout=1: must be a probability"),
        (["model/objective=m2"], Exception, "M2 needs a decoder that is given labels; choose model/labels=embedded"),
        (
            ["data=arrays", "data.source.path=images.npy", *CONDITIONAL],
            DataError,
            "no labels.*choose model/labels=none, or",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_refused_before_training(
    options: list[str], error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", np.zeros((20, 28, 28), np.uint8))
    given = [
        option for option in BARE if "data=arrays" not in options or ("glyphs" not in option and "source" not in option)
    ]
    with pytest.raises(error, match=message):
        train(compose_config(*given, "model=mlp", "callbacks=none", "logger=none", *options), tmp_path / "run", False)
    assert not (tmp_path / "run" / "metrics.json").exists()


def own_run(folder: Path, *options: str) -> LoadedRun:
    checkpoints = "+callbacks.checkpoints._target_=vae_lightning.callbacks.Checkpoints"
    settings = ["callbacks=none", checkpoints, "logger=none", "model=mlp", *SMALL, *CONDITIONAL]
    return train(compose_config(*BARE, *settings, *options), folder, progress=False)


@pytest.mark.parametrize(
    "options",
    [
        ["data.label_dropout=0.2", "data.labelled=0.5"],
        ["model/prior=class_conditional", "model/objective=m2", "data.labelled=0.2", "engine.steps_per_call=3"],
    ],
    ids=["dropout", "m2"],
)
def test_it_is_extended_bit_by_bit(tmp_path: Path, options: list[str]) -> None:
    whole = own_run(tmp_path / "whole", *options)
    own_run(tmp_path / "parts", *options, "trainer.max_epochs=1")
    parts = own_run(tmp_path / "parts", *options, "resume=true")
    assert whole.metrics["steps"] == parts.metrics["steps"] == 6
    state = parts.model.state_dict()
    assert [name for name, value in whole.model.state_dict().items() if not torch.equal(value, state[name])] == []
    if "model/objective=m2" in options:
        assert 0 <= whole.metrics["test/label_accuracy"] <= 1
        assert whole.metrics["test/classification"] > 0


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of one run with labels everywhere, drawn, measured and reported."""
    folder = tmp_path_factory.mktemp("conditional")
    options = [*TINY, *CONDITIONAL, "model/prior=class_conditional", "model.latent_dim=2", "callbacks.explorer.cells=5"]
    options += ["trainer.max_epochs=3", "model.optimizer.lr=0.01", "callbacks.figures.quantile_cells=3"]
    options += ["callbacks.grids.every_n_batches=9", "callbacks.explorer.steps=3"]
    done = run_command("vae_lightning.cli", *options, "-m", "hydra.sweep.dir=sweep", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return folder / "sweep"


@pytest.fixture
def run(sweep: Path) -> Run:
    (file,) = sweep.glob("*/metrics.json")
    return Run(file.parent)


def test_it_is_measured_drawn_and_explored(sweep: Path, run: Run) -> None:
    drawn = {path.stem for path in run.figures.glob("*.png")}
    assert drawn >= {"samples_by_class", "samples", "latent_means", "lattice", "lattice_of_quantiles"}
    needed = ["iw_bound", "mse", "knn_accuracy", "frechet_samples", "posterior_covariance_gap"]
    assert all(math.isfinite(run.metrics[f"test/{name}"]) for name in needed)
    with np.load(run.explorer_file) as found:
        assert found["decoded_classes"].tolist() == list(range(10))
        assert found["lattice"].shape == (50, 5, 1, 28, 28)
        assert found["slides"].shape == (20, 3, 1, 28, 28)
        corner = torch.tensor([[found["box"][0, 0], found["box"][1, 1]]])
        for label in (0, 7):
            expected = load_run(run.folder).model.decode(corner, torch.tensor([label])).mean[0] * 255
            assert np.abs(found["lattice"][5 * label, 0] - expected.numpy()).max() < 1
    assert "Samples of each class, the same noise in each column" in (sweep / "report" / "index.html").read_text()


def test_rows_of_the_figure_are_classes_and_columns_noise(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(plots, "traversals", lambda *given: drawn.update(zip(("images", "names"), given, strict=False)))
    model = load_run(run.folder).model
    with torch.no_grad():
        FinalFigures(class_samples=3)._by_class(model, "abcdefghij", "")
        torch.manual_seed(0)
        noise = torch.randn(3, 2)
        labels = torch.arange(10).repeat_interleave(3)
        z = model.prior.means[labels] + model.prior.log_scales[labels].exp() * noise.repeat(10, 1)
        torch.testing.assert_close(drawn["images"].flatten(0, 1), model.decode(z, labels).mean)
    assert drawn["names"] == list("abcdefghij")


def generate(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["vae-generate", *map(str, arguments)])
    try:
        main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


def test_samples_of_a_class_by_name_or_number(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert generate(monkeypatch, "sample", run.folder, "-n", 5, "--label", "7,ki", "-o", "a.npz") == 0
    model, labels = load_run(run.folder).model, torch.tensor([7, 1, 7, 1, 7])
    torch.manual_seed(0)
    with torch.no_grad():
        expected = (model.decode(model.prior_distribution(labels).sample(), labels).mean * 255).round().byte()
    with np.load("a.npz") as found:
        assert np.array_equal(found["samples"] if "samples" in found else found["images"], expected.numpy())
    capsys.readouterr()
    assert generate(monkeypatch, "sample", run.folder, "--label", "kii", "-o", "b.npz") == 2
    assert "--label kii: must be the name or the number of a class: 0 o, 1 ki" in capsys.readouterr().err
    assert not Path("b.npz").exists()


def test_every_verb_works(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for verb in ("sample", "encode", "interpolate 3 17", "traverse --image 3", "lattice"):
        name, *rest = verb.split()
        assert generate(monkeypatch, name, run.folder, *rest) == 0
    loaded = load_run(run.folder)
    images, labels = loaded.test_images(20)
    assert generate(monkeypatch, "reconstruct", run.folder, "-o", "a.npz") == 0
    with np.load("a.npz") as found, torch.no_grad():  # with their labels
        expected = (loaded.model.reconstruct(images, labels) * 255).round().byte()
        assert np.array_equal(found["reconstructions"], expected.numpy())


def test_a_label_of_a_model_without_labels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train(compose_config(*BARE, "callbacks=none", "+callbacks.checkpoints._target_=vae_lightning.callbacks.Checkpoints",
                  "logger=none", "model=mlp", *SMALL, "trainer.max_epochs=1"), tmp_path / "plain", False)  # fmt: skip
    assert generate(monkeypatch, "sample", "plain", "--label", "ki") == 2
    assert "--label ki: samples of plain do not depend on a class" in capsys.readouterr().err


@pytest.mark.slow
def test_it_is_exported_with_labels_as_an_input(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    assert generate(monkeypatch, "export", run.folder, "-o", "model.onnx") == 0
    said = capsys.readouterr().out
    assert "images and labels to mean and stddev" in said
    assert "codes and labels to images" in said


def test_it_is_evaluated_again(run: Run) -> None:
    found = evaluate(run.folder, progress=False, name="again", force=True).metrics
    again = {name: value for name, value in found.items() if name.startswith("test/")}
    assert again == {name: value for name, value in run.metrics.items() if name in again}


def test_other_classes_are_not_evaluated(run: Run, tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", images=np.zeros((40, 28, 28), np.uint8), labels=np.arange(40) % 12)
    with pytest.raises(DataError, match="are of 12 classes, the model was trained with 10"):
        evaluate(run.folder, "arrays", [f"data.source.path={tmp_path / 'many.npz'}"], progress=False)
