"""Scores that tell images of other data, where the right answer is known."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from small_models import PIXELS, LinearGaussian
from test_known_metrics import Silent
from torch import Tensor

from vae_lightning.data.batch import Batch
from vae_lightning.evaluating.against import measure_against
from vae_lightning.metrics.outliers import auroc, code_length, complexity

WIDER = 1.3  # standard deviation of the outliers


class Drawn:
    """A data module with images drawn from a model, wider or narrower than they should be."""

    eval_batch_size = 700

    def __init__(self, model: LinearGaussian, scale: float, seed: int = 0) -> None:
        self.name = f"scaled by {scale}"
        covariance = model.weight @ model.weight.T + 0.36 * torch.eye(PIXELS).double()
        noise = torch.randn(4000, PIXELS, generator=torch.Generator().manual_seed(seed)).double()
        self.images = (model.offset + scale * noise @ torch.linalg.cholesky(covariance).T).view(-1, 1, 2, 3).detach()

    def chosen(self, split: str, count: int) -> Tensor:
        return torch.arange(count) + (2000 if split == "train" else 0)

    def numbered(self, split: str, numbers: Tensor) -> Batch:
        return Batch(self.images[numbers], torch.zeros(len(numbers)))


@pytest.fixture
def model() -> LinearGaussian:
    found: Any = LinearGaussian(exact=True)  # whose bound is log p(x) exactly
    found.device, found.has_bound, found.conditional, found.encoder = torch.device("cpu"), True, False, None
    return found


def measured(model: LinearGaussian, *scales: float) -> dict[str, float]:
    others = [(f"{scale}", Drawn(model, scale, seed)) for seed, scale in enumerate(scales)]
    return measure_against(model, Drawn(model, 1.0), others, 2, Silent())  # type: ignore[arg-type]


def test_areas_of_a_linear_model_are_those_of_chi_squared_variables(model: LinearGaussian) -> None:
    found = measured(model, 1.0, WIDER, 0.5)
    # The same images.
    for score in ("bound", "typicality", "complexity"):
        assert found[f"test/auroc_{score}_against_1.0"] == pytest.approx(0.5, abs=1e-3)
    square = stats.chi2(PIXELS)  # −2 log p(x), up to a constant
    for scale in (WIDER, 0.5):
        by_bound = 1 - stats.f(PIXELS, PIXELS).cdf(1 / scale**2)

        def farther(q: float, scale: float = scale) -> float:
            """The density of an image's q, times the probability that an outlier's is farther from the mean."""
            distance = abs(q - PIXELS)
            beyond, below = (PIXELS + distance) / scale**2, (PIXELS - distance) / scale**2
            return square.pdf(q) * (square.sf(beyond) + square.cdf(below))

        by_typicality = integrate.quad(farther, 0, 80, points=[PIXELS, 2 * PIXELS], limit=200)[0]
        assert found[f"test/auroc_bound_against_{scale}"] == pytest.approx(by_bound, abs=0.025)
        assert found[f"test/auroc_typicality_against_{scale}"] == pytest.approx(by_typicality, abs=0.025)
    # Images that are too likely.
    assert found["test/auroc_bound_against_0.5"] < 0.2 < 0.5 < found["test/auroc_typicality_against_0.5"]


def test_models_without_a_comparable_bound_are_left_out(
    model: LinearGaussian, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        model.conditional = True  # type: ignore[assignment]
        assert measured(model, WIDER) == {}
        model.has_bound = False  # type: ignore[assignment]
        assert measured(model, WIDER) == {}
    lines = [record.getMessage() for record in caplog.records]
    assert "given a label" in lines[0]
    assert lines[1] == "left out   --against: the model has no bound of log p(x)"


def test_an_area_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = np.random.default_rng(0)
    inside, outside = generator.integers(0, 9, 40), generator.integers(3, 12, 30)
    pairs = [(o > i) + 0.5 * (o == i) for i in inside for o in outside]
    assert auroc(*(torch.from_numpy(scores) for scores in (inside, outside))) == pytest.approx(np.mean(pairs))


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_a_code_length_is_little_above_the_entropy_of_noise(channels: int) -> None:
    noise = torch.rand(1, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    pixels = channels * 64 * 64
    even, coins, grey = (code_length(image).item() for image in (0 * noise, (noise > 0.5).float(), noise))
    assert 0 < even < 2000
    assert pixels < coins < 2.1 * pixels  # 1 bit each
    assert 8 * pixels < grey < 8.2 * pixels + even  # 8 bits each


def test_complexity_is_in_bits_and_takes_the_file_off() -> None:
    """What a compressor needs is no fault of the model: by its bound alone, the complex image is the outlier."""
    lengths = torch.tensor([1000.0, 2000.0])
    fair = -lengths * math.log(2)  # nats
    assert complexity(fair, lengths).tolist() == pytest.approx([0, 0], abs=1e-3)
    assert complexity(fair + torch.tensor([0.0, math.log(2)]), lengths).diff().item() == pytest.approx(-1, abs=1e-3)
