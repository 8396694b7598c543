"""Measurements of small models whose metrics are known: what is compared with what."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from vae_lightning.architectures.conditional import ConditionalDecoder
from vae_lightning.architectures.mlp import MLPDecoder
from vae_lightning.data.batch import Batch
from vae_lightning.latent_spaces import Euclidean
from vae_lightning.measuring import Sizes, Subject, annealing, averages, copies, distances, paths
from vae_lightning.metrics import quality
from vae_lightning.metrics.reference import Reference
from vae_lightning.objectives import ELBO

SIDE = 16


class Pixels(nn.Module):
    """Stands for a classifier: its features are the pixels."""

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)


class Silent:
    @contextmanager
    def step(self, name: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        yield lambda share: None


class OwnImages:
    """A data module with given images."""

    name = "own"
    class_names = ("one", "other")

    def __init__(self, test: Tensor, train: Tensor) -> None:
        self.images = {"test": test, "train": train}

    def examples(self, name: str, count: int) -> Batch:
        images = self.images[name][:count]
        return Batch(images, torch.arange(len(images)) % 2)


def subject(model: Any, data: OwnImages, **sizes: int) -> Subject:
    found = Subject(
        model, data, lambda: iter([data.examples("test", 10_000)]), 1, Sizes(**sizes), Silent(), None  # type: ignore[arg-type]
    )  # fmt: skip
    metrics = {"classifier_accuracy": 1.0, "chance_accuracy": 0.5}
    found.reference = Reference(Pixels(), metrics, len(data.images["test"]), data.images["train"])  # type: ignore[arg-type,misc]
    return found


class Model(nn.Module):
    """A deterministic autoencoder, a line or plane of codes in [−8, 8]."""

    device = torch.device("cpu")
    conditional = False
    has_bound = True
    latent_dim = 2
    latent_space = Euclidean(2)

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.decoder = decoder

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Distribution:
        columns = images.sum((1, 2))
        place = (columns * torch.arange(SIDE)).sum(1) / columns.sum(1)
        code = torch.stack([(place - 0.5 * (SIDE - 1)) * 16 / SIDE, torch.zeros(len(images))], 1)
        return Independent(Normal(code, 0.1), 1)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal(self.decoder(z), 0.1), 3)

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal(torch.zeros(2), torch.ones(2)), 1)


class Bar(nn.Module):
    """A bright vertical bar at the place that the code's first coordinate says, drawn by a layer that has learnt to."""

    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Linear(SIDE, SIDE, bias=False)
        nn.init.eye_(self.row.weight)

    def forward(self, z: Tensor) -> Tensor:
        distance = torch.arange(SIDE) - (z[..., :1] * SIDE / 16 + 0.5 * (SIDE - 1))
        row = self.row((-0.5 * distance.square()).exp())
        return row[..., None, None, :].expand(*row.shape[:-1], 1, SIDE, SIDE)


class CrossFade(Bar):
    """Blends a bar at the left with one at the right."""

    def forward(self, z: Tensor) -> Tensor:
        share = (z[..., :1] / 16 + 0.5).clamp(0, 1)[..., None, None]
        left, right = (super(CrossFade, self).forward(torch.tensor([[end, 0.0]])) for end in (-8.0, 8.0))
        return torch.lerp(left, right, share)


def bars(count: int, seed: int) -> Tensor:
    places = torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 17 - 8.5
    with torch.no_grad():
        return Bar()(torch.stack([places, torch.zeros(count)], 1))


@pytest.mark.parametrize("kind", ["", "_lattice"])
def test_half_way_a_good_space_has_images_of_the_data_and_a_cross_fade_has_not(kind: str) -> None:
    data = OwnImages(bars(60, 0), bars(500, 1))
    with torch.no_grad():
        torch.manual_seed(0)
        good = paths.measure(subject(Model(Bar()), data))
        faded = paths.measure(subject(Model(CrossFade()), data))
    names = [f"halfway_distance{control}{kind}" for control in ("", "_crossfade", "_untrained")]
    halfway, crossfade, untrained = (good[name] for name in names)
    assert halfway < 2  # about as near as another real image
    assert crossfade > 5 * halfway
    assert untrained > 2 * halfway
    assert faded[names[0]] == pytest.approx(faded[names[1]], rel=0.01)
    assert faded[names[0]] > 5 * halfway
    # Evenness tells nothing of this, as it would of a jump.
    assert faded[f"path_unevenness{kind}"] < 0.25


def test_the_trained_decoder_is_there_again_after_the_untrained_one() -> None:
    model = Model(Bar())
    decoder = model.decoder
    before = [parameter.clone() for parameter in model.parameters()]
    paths.measure(subject(model, OwnImages(bars(9, 0), bars(9, 1))))
    assert model.decoder is decoder
    assert all(torch.equal(*pair) for pair in zip(before, model.parameters(), strict=True))


def test_without_images_held_out_a_path_has_its_evenness_alone() -> None:
    of_few = subject(Model(Bar()), OwnImages(bars(9, 0), bars(9, 1)))
    of_few.reference = of_few.reference._replace(held_out=bars(0, 1))
    with torch.no_grad():
        assert set(paths.measure(of_few)) == {"path_unevenness", "path_unevenness_lattice"}


def test_an_untrained_decoder_is_initialised_as_the_trained_one_was() -> None:
    decoder = MLPDecoder((1, SIDE, SIDE), 4, hidden=[500], initialisation="he")
    model = Model(ConditionalDecoder(decoder, 2, classes=3))
    for parameter in model.parameters():
        parameter.data.fill_(7.0)
    torch.manual_seed(0)
    with paths._untrained(model):
        assert model.decoder.vectors.weight.abs().max() < 3
        assert model.decoder.decoder.pixels.weight.var().item() == pytest.approx(2 / 500, rel=0.05)
        assert not model.decoder.decoder.pixels.bias.any()


@pytest.mark.parametrize("binary", [True, False])
def test_like_is_compared_with_like(binary: bool) -> None:
    """A model that knows the grey values is as near as other images of the data are, whether drawn or not."""
    grey = torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).repeat(1200, 1, 1, 1)
    grey += 0.2 * torch.rand(grey.shape, generator=torch.Generator().manual_seed(1)) - 0.1
    grey = grey.clamp(0, 1)
    shown = grey.bernoulli(generator=torch.Generator().manual_seed(2)) if binary else grey
    data = OwnImages(shown[:600], shown[600:])
    model = SimpleNamespace(
        device=torch.device("cpu"),
        sample=lambda count, labels: grey[torch.randperm(1200)[:count]],
        reconstruct=lambda images, labels: grey[:600],
    )
    torch.manual_seed(0)
    found = distances.measure(subject(model, data, quality_images=600))
    assert found["frechet_samples"] < 2 * found["frechet_floor"]
    assert found["frechet_reconstructions"] < 2 * found["frechet_floor"]


def test_the_floor_is_of_as_many_images() -> None:
    images = torch.rand(400, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    data = OwnImages(images[:300], images[300:])
    model = SimpleNamespace(
        device=torch.device("cpu"),
        sample=lambda count, labels: images[:count],
        reconstruct=lambda images, labels: images,
    )
    torch.manual_seed(0)
    found = distances.measure(subject(model, data))
    torch.manual_seed(0)
    test, other = images[:300].flatten(1), images[300:].flatten(1)
    expected = [quality.distances(test[torch.randperm(300)[:100]], other).frechet for _ in range(5)]
    assert min(expected) * 0.9 < found["frechet_floor"] < max(expected) * 1.1
    assert quality.distances(test, other).frechet < 0.8 * min(expected)  # it falls with the number of images


class Gaussian(Model):
    """p(x|z) = N(z, 1), p(z) = N(0, I) in each of d dimensions, and a posterior that is too wide: log p(x) is known."""

    def __init__(self, dimensions: int) -> None:
        super().__init__(nn.Identity())
        self.latent_dim = dimensions
        self.encoded = 0

    def encode(self, images: Tensor, labels: Tensor | None = None) -> Distribution:
        self.encoded += 1
        return Independent(Normal(images.flatten(1) / 2, 1.2 * 0.5**0.5), 1)

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal(z[..., None, None, :], 1.0), 3)

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal(torch.zeros(self.latent_dim), torch.ones(self.latent_dim)), 1)


def measured_bound(dimensions: int, samples: int) -> tuple[dict[str, float], Subject, float]:
    torch.manual_seed(1)
    images = 2**0.5 * torch.randn(300, 1, 1, dimensions)
    found = subject(
        Gaussian(dimensions), OwnImages(images, images), bound_samples=samples, bound_images=300, training_images=0
    )
    metrics = averages.measure(found)
    return metrics, found, Normal(0.0, 2**0.5).log_prob(images).flatten(1).sum(1).mean().item()


def test_the_annealed_bound_and_what_it_gains() -> None:
    torch.manual_seed(1)
    images = 2**0.5 * torch.randn(300, 1, 1, 2)
    exact = Normal(0.0, 2**0.5).log_prob(images).flatten(1).sum(1)
    sizes = {"annealed_images": 200, "annealed_chains": 4, "annealed_steps": 30}
    one = subject(Gaussian(2), OwnImages(images, images), bound_samples=1, **sizes)
    found = annealing.measure(one)
    shown = one.examples("test", 200).images
    truth = Normal(0.0, 2**0.5).log_prob(shown).flatten(1).sum(1)
    assert found["annealed_bound"] == pytest.approx(truth.mean().item(), abs=0.1)
    # Of one sample of a posterior that is too wide, the bound is KL(q ‖ p(z|x)) below.
    below = kl_divergence(Normal(0.0, 1.2 * 0.5**0.5), Normal(0.0, 0.5**0.5)).item() * 2
    assert found["annealed_rise"] == pytest.approx(below, abs=4 * found["annealed_rise_stderr"] + 0.1)
    assert -3 * found["annealed_gap_stderr"] < found["annealed_gap"] < 0.2
    few = annealing.measure(subject(Gaussian(2), OwnImages(images, images), **sizes | {"annealed_steps": 2}))
    assert few["annealed_gap"] > 4 * few["annealed_gap_stderr"] > 0
    assert found["annealed_bound_stderr"] == pytest.approx(exact.std().item() / 200**0.5, rel=0.2)
    for size in sizes:
        assert annealing.measure(subject(Gaussian(2), OwnImages(images, images), **{**sizes, size: 0})) == {}


def test_a_bound_that_has_settled_and_one_that_has_not() -> None:
    settled, _, exact = measured_bound(2, 512)
    assert settled["iw_bound"] == pytest.approx(exact, abs=0.02)
    torch.manual_seed(1)
    truth = Normal(0.0, 2**0.5).log_prob(2**0.5 * torch.randn(300, 2)).sum(1)
    assert settled["iw_bound_stderr"] == pytest.approx(truth.std().item() / 300**0.5, rel=0.02)
    assert settled["iw_bound_rise"] < 0.01
    assert settled["effective_sample_share"] > 0.7
    rising, found, exact = measured_bound(200, 64)
    missing = exact - rising["iw_bound"]
    assert missing > 0.5
    assert rising["iw_bound_rise"] > 0.1 > rising["iw_bound_rise_stderr"]
    assert 1 / 64 < rising["effective_sample_share"] < 0.1
    assert found.arrays["bound_samples"].tolist() == [1, 2, 5, 10, 20, 50, 64]
    curve = found.arrays["bound"]
    assert (curve.diff() > 0).all()
    assert curve[-1].item() == rising["iw_bound"]
    assert found.arrays["bound_stderr"][-1].item() == rising["iw_bound_stderr"]
    gaps = found.arrays["bound_gap_stderr"]
    assert (gaps[:-1] > 0).all()
    assert gaps[-1] == 0


def test_the_bound_of_some_images_stands_for_that_of_all() -> None:
    """Images of two kinds, far apart in log p(x); the posterior is equally wrong for both."""
    torch.manual_seed(2)
    images = 2**0.5 * torch.randn(2000, 1, 1, 8)
    images[::2] *= 4
    every, some, fewer = (
        subject(Gaussian(8), OwnImages(images, images), bound_samples=20, bound_images=count, training_images=0)
        for count in (2000, 100, 25)
    )
    whole, part, less = (averages.measure(one) for one in (every, some, fewer))
    spread = Normal(0.0, 2**0.5).log_prob(images).flatten(1).sum(1).std().item()
    assert whole["iw_bound_stderr"] == pytest.approx(spread / 2000**0.5, rel=0.1)
    assert part["elbo_stderr"] == whole["elbo_stderr"]
    # With a twentieth of the images, nearly the error of all, and a fraction of what these images have alone.
    assert whole["iw_bound_stderr"] < part["iw_bound_stderr"] < 1.5 * whole["iw_bound_stderr"]
    assert part["iw_bound_stderr"] < less["iw_bound_stderr"]
    for found in (part, less):
        apart = found["iw_bound_stderr"] ** 2 - whole["iw_bound_stderr"] ** 2  # of what the second phase adds
        assert abs(found["iw_bound"] - whole["iw_bound"]) < 4 * max(apart, 0.01) ** 0.5
    assert some.arrays["bound"][-1].item() == part["iw_bound"]
    assert averages.measure(subject(Gaussian(8), OwnImages(images, images), bound_samples=20, bound_images=0)) == {
        name: value for name, value in whole.items() if "iw_bound" not in name and name != "effective_sample_share"
    }


def test_images_with_a_bound_come_from_all_batches() -> None:
    torch.manual_seed(3)
    images = torch.arange(100.0)[:, None, None, None].expand(-1, 1, 1, 2)
    found = subject(Gaussian(2), OwnImages(images, images), bound_samples=2, bound_images=10, training_images=0)
    found.test_batches = lambda: (Batch(part, None) for part in images.split(16))  # the last one is smaller
    found.batches = 7
    seen: list[float] = []
    encode = found.model.encode
    found.model.encode = lambda images, labels=None: (  # type: ignore[method-assign]
        seen.extend(images[:, 0, 0, 0].tolist() if len(images) < 4 else []) or encode(images, labels)
    )
    averages.measure(found)
    assert len(seen) == 9  # of 112 images, had the last batch been whole, 10
    assert {value // 16 for value in seen} == {0, 1, 2, 3, 4, 5}
    assert max(value % 16 for value in seen) > 7  # at random


def test_images_are_encoded_once_however_many_samples_a_bound_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(averages, "_announce", lambda *_: None)  # it tries a piece
    monkeypatch.setattr("vae_lightning.data.sizes.AT_ONCE", 4 * 2 * 300)
    _, found, _ = measured_bound(2, 40)
    assert found.model.encoded == 1  # type: ignore[attr-defined]


def test_the_elbo_of_as_many_training_images_is_held_against_that_of_test_images() -> None:
    """The elbo is log p(x) less the divergence of a posterior that is too wide from the exact one."""
    torch.manual_seed(0)
    images = 2**0.5 * torch.randn(1000, 1, 1, 2)
    model = Gaussian(2)
    data = OwnImages(images[:400], torch.cat([1.5 * images[400:800], 9 * images[800:]]))
    found = subject(model, data, bound_samples=30, training_images=2000)
    metrics = averages.measure(found)
    exact = [Normal(0.0, 2**0.5).log_prob(data.images[name][:400]).flatten(1).sum(1) for name in ("train", "test")]
    posterior = model.encode(images[:1])
    width = kl_divergence(Normal(0.0, posterior.base_dist.stddev[0]), Normal(0.0, 0.5**0.5)).sum()
    assert metrics["elbo_training"] == pytest.approx((exact[0].mean() - width).item(), abs=0.03)
    gap = (exact[0] - exact[1]).mean().item()
    assert metrics["generalisation_gap"] == pytest.approx(gap, abs=0.04)
    error = sum(part.var() / 400 for part in exact) ** 0.5
    assert metrics["generalisation_gap_stderr"] == pytest.approx(error.item(), rel=0.1)
    # The same images, however many samples test images have.
    same = averages.measure(subject(model, OwnImages(images, images), bound_samples=300, bound_images=500))
    assert same["generalisation_gap"] == pytest.approx(0, abs=0.05)
    assert "generalisation_gap" not in averages.measure(subject(model, data, bound_samples=3, training_images=0))


def test_the_error_of_the_elbo_is_that_of_a_bootstrap_over_images() -> None:
    """With hundreds of images the normal interval is the bootstrap's, though bounds of single images are skewed."""
    metrics, found, _ = measured_bound(2, 5)
    without, _, _ = measured_bound(2, 0)
    assert without["elbo_stderr"] == metrics["elbo_stderr"]
    torch.manual_seed(0)
    values = -ELBO()(found.model, found.examples("test", 300))["loss"]
    assert metrics["elbo_stderr"] == pytest.approx(values.std().item() / 300**0.5, rel=0.01)
    resampled = stats.bootstrap([values.numpy()], np.mean, method="BCa", rng=np.random.default_rng(0))
    assert metrics["elbo_stderr"] == pytest.approx(resampled.standard_error, rel=0.05)
    low, high = resampled.confidence_interval
    assert 1.96 * metrics["elbo_stderr"] == pytest.approx((high - low) / 2, rel=0.05)


class Drawing:
    """Stands for a model that draws given images."""

    device = torch.device("cpu")

    def __init__(self, samples: Tensor) -> None:
        self.samples = samples

    def sample(self, count: int, labels: Tensor | None = None) -> Tensor:
        return self.samples[:count]

    def reconstruct(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return 0.9 * images


def test_copies_are_nearer_to_training_images_than_test_images_are() -> None:
    test, train = (torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(count)) for count in (100, 300))
    originals = torch.randperm(300)[:100]
    nearly = (train[originals] + 0.01 * torch.randn(100, 1, 8, 8)).clamp(0, 1)
    copied = subject(Drawing(nearly), OwnImages(test, train))
    metrics = copies.measure(copied)
    assert metrics["copy_distance"] < 0.05
    assert 0.7 < metrics["copy_distance_reconstructions"] < 1
    assert copied.arrays["copied_distances"].diff().min() >= 0
    assert (copied.arrays["copied_samples"] - copied.arrays["copied_images"]).abs().max() < 0.06
    assert len(copied.arrays["copied_samples"]) == 20
    fresh = torch.rand(100, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert copies.measure(subject(Drawing(fresh), OwnImages(test, train)))["copy_distance"] == pytest.approx(1, abs=0.1)
    # A copy of an image that is not looked at goes unseen.
    assert copies.measure(subject(Drawing(nearly), OwnImages(test, train), copy_images=30))["copy_distance"] > 0.5
    assert copies.measure(subject(Drawing(nearly), OwnImages(test, train), copy_images=0)) == {}


def test_no_distance_of_copies_where_test_images_are_training_images(caplog: pytest.LogCaptureFixture) -> None:
    images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with caplog.at_level("INFO"):
        assert copies.measure(subject(Drawing(images), OwnImages(images, images))) == {}
    assert "distances of copies are left out" in caplog.text


def test_samples_are_compared_as_other_real_images_are() -> None:
    """A model that draws test images anew is as good as real images; one that draws one image is not."""
    real = torch.rand(900, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    data = OwnImages(real[:300], real[300:600])
    torch.manual_seed(0)
    good = distances.measure(subject(Drawing(real[600:]), data, half_samples=10))
    for score in ("precision", "recall", "density", "coverage"):
        assert good[score] == pytest.approx(good[f"{score}_real"], abs=4 * good[f"{score}_stderr"])
        assert 0 < good[f"{score}_stderr"] < 0.1
    assert 0 < good["frechet_samples_stderr"] < good["frechet_samples"] + 0.05
    poor = distances.measure(subject(Drawing(real[600:601].repeat(300, 1, 1, 1)), data))
    assert poor["recall"] < 0.02
    assert poor["recall_real"] > 0.5
    assert poor["coverage"] < 0.05
    assert not [name for name in poor if name.endswith("_stderr")]
