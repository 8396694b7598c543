"""The parts of the rate, where they are known."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

from vae_lightning.distributions import SphericalUniform, VonMisesFisher
from vae_lightning.metrics import information
from vae_lightning.metrics.information import rate_parts


def normal(means: Tensor, deviation: Tensor | float) -> Independent:
    return Independent(Normal(means, torch.as_tensor(deviation).expand_as(means), validate_args=False), 1)


def parts(means: Tensor, deviation: Tensor | float, prior: Distribution | None = None, **options: bool) -> dict:
    """Of images with these posterior means, and by default the standard prior."""
    posteriors = [[normal(means[start::2], deviation)] for start in (0, 1)]
    unit = normal(means.new_zeros(means.shape[1]), 1.0)
    torch.manual_seed(0)
    return rate_parts(posteriors, prior or unit, **options)


class LinearGaussian:
    """q(z|x) = N(A x, diag s²) of images x ~ N(0, I): q(z) = N(0, A Aᵀ + diag s²)."""

    def __init__(self, matrix: Tensor, deviation: Tensor, images: int) -> None:
        generator = torch.Generator().manual_seed(1)
        self.deviation = deviation
        self.means = torch.randn(images, matrix.shape[1], generator=generator, dtype=matrix.dtype) @ matrix.T
        self.covariance = matrix @ matrix.T + deviation.square().diag()

    @property
    def information(self) -> float:
        return (self.covariance.logdet() / 2 - self.deviation.log().sum()).item()

    @property
    def total_correlation(self) -> float:
        return ((self.covariance.diagonal().log().sum() - self.covariance.logdet()) / 2).item()

    @property
    def dimensionwise(self) -> float:
        variances = self.covariance.diagonal()
        return kl_divergence(Normal(torch.zeros_like(variances), variances.sqrt()), Normal(0.0, 1.0)).sum().item()


def test_the_parts_of_a_linear_gaussian_encoder() -> None:
    matrix = torch.tensor([[1.2, 0.5], [1.0, 0.3], [0.0, 0.4]]).double()
    model = LinearGaussian(matrix, torch.tensor([0.5, 0.6, 0.9]).double(), 1500)
    found = parts(model.means, model.deviation)
    marginal = model.total_correlation + model.dimensionwise
    assert model.total_correlation > 0.4
    assert model.dimensionwise > 0.1
    for name, exact in [
        ("mutual_information", model.information),
        ("marginal_kl", marginal),
        ("total_correlation", model.total_correlation),
    ]:
        lower, upper = found[f"{name}_lower"], found[f"{name}_upper"]
        assert exact - 0.12 < lower < exact + 0.06
        assert exact - 0.06 < upper < exact + 0.12
    assert found["dimensionwise_kl"] == pytest.approx(model.dimensionwise, abs=0.06)
    rate = kl_divergence(normal(model.means, model.deviation), normal(torch.zeros(3).double(), 1.0)).mean().item()
    assert found["mutual_information_lower"] + found["marginal_kl_upper"] == pytest.approx(rate)
    assert found["mutual_information_upper"] + found["marginal_kl_lower"] == pytest.approx(rate)
    rest = found["marginal_kl_lower"] - found["dimensionwise_kl"]
    assert found["total_correlation_lower"] == pytest.approx(rest)


def test_the_gaussian_bounds_what_many_correlated_dimensions_tell() -> None:
    torch.manual_seed(0)
    matrix = torch.eye(12).double() + 0.6
    model = LinearGaussian(matrix, torch.full((12,), 0.2).double(), 600)
    found = parts(model.means, model.deviation)
    assert found["mutual_information_lower"] == pytest.approx(math.log(600), abs=0.01)
    assert model.information > 15
    assert model.information - 0.1 < found["mutual_information_upper"] < model.information + 0.6
    assert model.total_correlation - 0.8 < found["total_correlation_lower"] < model.total_correlation + 0.3
    without = parts(model.means, model.deviation, euclidean=False)
    assert without["mutual_information_upper"] > model.information + 0.8 * model.total_correlation


def test_a_gaussian_is_not_judged_by_what_it_was_fitted_to() -> None:
    """Of few images in many dimensions: by its own, it would be too good by far."""
    model = LinearGaussian(2.0 * torch.eye(20).double(), torch.ones(20).double(), 60)
    assert parts(model.means, model.deviation)["mutual_information_upper"] > model.information - 0.5


def test_the_marginals_bound_what_independent_dimensions_tell() -> None:
    """Twelve coins, far more than so few images can tell apart, and not at all a Gaussian."""
    coins = 6.0 * torch.randint(2, (300, 12), generator=torch.Generator().manual_seed(0)) - 3
    found = parts(coins, 0.1)
    assert found["mutual_information_upper"] == pytest.approx(12 * math.log(2), abs=0.2)
    assert found["mutual_information_lower"] <= math.log(300) + 1e-6
    assert found["total_correlation_lower"] == pytest.approx(0, abs=1e-6)


def test_few_images_that_are_often_repeated_are_bounded_by_the_others() -> None:
    """Four places on a diagonal: each dimension alone tells all of it."""
    places = 4.0 * torch.arange(400).remainder(4).view(-1, 1).expand(-1, 3)
    found = parts(places, 0.1)
    assert found["mutual_information_lower"] == pytest.approx(math.log(4), abs=1e-3)
    assert found["mutual_information_upper"] == pytest.approx(math.log(4), abs=0.02)
    assert found["total_correlation_upper"] == pytest.approx(2 * math.log(4), abs=0.1)


def test_the_information_is_at_most_the_rate() -> None:
    """A prior that is the aggregate posterior, which only images know that are in it."""
    means = 30 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0)).double()
    prior = MixtureSameFamily(Categorical(logits=torch.zeros(50).double()), normal(means, 0.1))
    found = parts(means, 0.1, prior)
    assert found["mutual_information_upper"] == pytest.approx(math.log(50), abs=1e-4)
    assert found["marginal_kl_lower"] == 0
    assert "dimensionwise_kl" not in found  # the prior's dimensions are not independent
    assert "total_correlation_lower" not in found


def test_collapsed_posteriors_tell_nothing() -> None:
    found = parts(torch.zeros(30, 5), 1.0)
    assert all(value == pytest.approx(0, abs=1e-5) or name.startswith("mutual") for name, value in found.items())
    assert found["mutual_information_upper"] == pytest.approx(0, abs=1e-5)


def test_on_the_sphere_no_gaussian_is_fitted() -> None:
    """Uniform directions, so all of the rate is information."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(600, 8), dim=-1)
    posterior = [VonMisesFisher(directions[start::2], torch.full((300,), 4.0)) for start in (0, 1)]
    prior = SphericalUniform(torch.zeros(8))
    rate = kl_divergence(posterior[0], prior).mean().item()
    found = rate_parts([[posterior[0]], [posterior[1]]], prior, euclidean=False)
    assert found["mutual_information_lower"] == pytest.approx(rate, abs=0.1)
    assert found["mutual_information_upper"] == pytest.approx(rate, abs=0.02)
    assert not {"dimensionwise_kl", "total_correlation_lower"} & found.keys()


def test_posteriors_with_dependent_dimensions_have_the_same_parts() -> None:
    """A full covariance that is diagonal."""
    model = LinearGaussian(torch.tensor([[1.0, 0.3], [0.5, 0.5]]).double(), torch.tensor([0.5, 0.8]).double(), 200)
    scale = model.deviation.diag().expand(100, 2, 2)
    full = [[MultivariateNormal(model.means[start::2], scale_tril=scale)] for start in (0, 1)]
    torch.manual_seed(0)
    found = rate_parts(full, MultivariateNormal(torch.zeros(2).double(), torch.eye(2).double()))
    assert found == pytest.approx(parts(model.means, model.deviation), abs=1e-6)


def test_pieces_give_the_same_and_samples_of_the_codes_nearly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = LinearGaussian(torch.tensor([[1.0], [0.7]]).double(), torch.tensor([0.4, 0.5]).double(), 400)
    whole = parts(model.means, model.deviation)
    monkeypatch.setattr(information, "AT_ONCE", 7 * 400 * 2)
    assert parts(model.means, model.deviation) == pytest.approx(whole, abs=1e-9)
    monkeypatch.setattr(information, "MOST", 200 * 400 * 2)
    assert parts(model.means, model.deviation) == pytest.approx(whole, abs=0.1)
    assert parts(model.means[:1], model.deviation) == {}
    assert parts(model.means[:2], model.deviation).keys() <= whole.keys()
