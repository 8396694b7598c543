"""Precision, recall, density and coverage against their definitions, and the errors of such scores."""

import numpy as np
import pytest
import torch
from torch import Tensor

from vae_lightning.metrics import support as module
from vae_lightning.metrics.support import half_sample_errors, support


def normal(count: int, seed: int, dimensions: int = 3) -> Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)).double()


def as_defined(real: np.ndarray, samples: np.ndarray, k: int) -> list[float]:
    """Each sum as it is written in the papers."""

    def ball(points: np.ndarray, i: int) -> float:
        return sorted(np.linalg.norm(points - points[i], axis=1))[k]

    within = [[np.linalg.norm(s - r) <= ball(real, i) for i, r in enumerate(real)] for s in samples]
    recalled = [any(np.linalg.norm(s - r) <= ball(samples, j) for j, s in enumerate(samples)) for r in real]
    density = sum(sum(row) for row in within) / (k * len(samples))
    covered = [any(column) for column in zip(*within, strict=True)]
    return [np.mean([any(row) for row in within]), np.mean(recalled), density, np.mean(covered)]


@pytest.mark.parametrize(("count", "samples", "k"), [(30, 20, 3), (17, 23, 5), (4, 3, 5)])
def test_each_is_as_it_is_defined(count: int, samples: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    real, other = normal(count, 0), 0.7 * normal(samples, 1) + 0.5
    expected = as_defined(real.numpy(), other.numpy(), min(k, count - 1, samples - 1))
    assert support(real, other, k) == pytest.approx(expected)


def test_equal_distributions_have_density_one_and_the_coverage_that_ranks_give() -> None:
    """Neither expectation depends on the distribution: only the ranks of distances matter."""
    count, k = 100, 5
    found = np.mean([support(normal(count, i), normal(count, 1000 + i), k) for i in range(60)], axis=0)
    ranks = np.arange(k)
    expected = 1 - np.prod((count - 1 - ranks) / (2 * count - 1 - ranks))  # about 1 − 2⁻ᵏ
    assert found[2] == pytest.approx(1, abs=0.02)
    assert found[3] == pytest.approx(expected, abs=0.005)
    assert found[0] == pytest.approx(found[1], abs=0.01)


def test_a_single_mode_is_precise_and_recalls_nothing() -> None:
    real = normal(300, 0)
    found = support(real, 0.01 * normal(300, 1) + real[:1])
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 300)  # the mode itself
    assert found.coverage < 0.1
    # And the other way round: samples everywhere, real images of one kind.
    turned = support(0.01 * normal(300, 1) + real[:1], real)
    assert turned.recall == 1
    assert turned.precision == pytest.approx(1 / 300)


def test_an_outlier_makes_samples_precise_but_not_dense() -> None:
    real = normal(300, 0)
    real[0] = 50
    found = support(real, real[:1] - 10 + normal(300, 1))
    assert found.precision == 1
    assert found.density == pytest.approx(1 / 5)
    assert found.coverage == pytest.approx(1 / 300)


def test_errors_of_means_are_known() -> None:
    real = normal(401, 0)
    other = real + 0.5 * normal(401, 1)

    def means(one: Tensor, two: Tensor) -> list[float]:
        return [one[:, 0].mean().item(), (two - one)[:, 0].mean().item(), len(one)]

    torch.manual_seed(0)
    errors = half_sample_errors(means, real, other, 400)
    expected = [real[:, 0].std().item() / 401**0.5, (other - real)[:, 0].std().item() / 401**0.5, 0]
    assert errors.tolist() == pytest.approx(expected, rel=0.1)


def test_errors_of_neighbourhoods_are_the_spread_of_fresh_draws() -> None:
    """A bootstrap of 500 points gives coverage 1.6 times that, around a value that is eight of them too low."""

    def drawn(seed: int) -> tuple[Tensor, Tensor]:
        return normal(200, seed, 8), 0.8 * normal(200, 5000 + seed, 8) + 0.3

    spread = np.std([support(*drawn(seed)) for seed in range(100)], axis=0)
    torch.manual_seed(0)
    errors = np.mean([half_sample_errors(support, *drawn(seed), 30).numpy() for seed in range(200, 204)], axis=0)
    assert (errors[1:] / spread[1:]).tolist() == pytest.approx([1, 1, 1], abs=0.35)
