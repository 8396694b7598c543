"""Likelihoods in float64: they integrate or sum to one, agree with their formulas, and stay finite at the ends."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch import nn
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Independent

from vae_lightning.likelihoods import Bernoulli, ContinuousBernoulli, DiscretizedLogistic, Gaussian

RAW = [-400.0, -12.0, -1.0, -1e-4, 0.0, 1e-4, 0.3, 5.0, 60.0]


def pixel(value: float) -> torch.Tensor:
    return torch.full((1, 1, 1), value, dtype=torch.float64)


def test_bernoulli_is_normalised_over_binary_images() -> None:
    logits = torch.randn(1, 2, 3, dtype=torch.float64)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 6).view(-1, 1, 2, 3)
    total = Bernoulli()(logits).log_prob(images).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total))


def test_the_floor_of_grey_images_is_their_entropy_and_that_of_binary_ones_nothing() -> None:
    images = torch.rand(4, 1, 2, 3, dtype=torch.float64)
    entropy = PixelBernoulli(probs=images).entropy().sum((1, 2, 3))
    torch.testing.assert_close(-Bernoulli()(images.logit()).log_prob(images), entropy)
    torch.testing.assert_close(Bernoulli().floor(images), entropy)
    assert Bernoulli().floor(images.round()).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("raw", RAW)
def test_continuous_bernoulli_integrates_to_one_and_has_its_mean(raw: float) -> None:
    distribution = ContinuousBernoulli()(pixel(raw))

    def density(x: float) -> float:
        return distribution.log_prob(pixel(x)).exp().item()

    ends = [min(1.0, 20 / max(1.0, abs(raw))), 1 - min(1.0, 20 / max(1.0, abs(raw)))]
    settings = {"points": ends, "limit": 200}
    assert integrate.quad(density, 0, 1, **settings)[0] == pytest.approx(1, abs=1e-7)
    mean = integrate.quad(lambda x: x * density(x), 0, 1, **settings)[0]
    assert distribution.mean.item() == pytest.approx(mean, abs=1e-6)
    torch.manual_seed(0)
    drawn = distribution.sample((20_000,))
    assert 0 <= drawn.min() <= drawn.max() <= 1
    assert drawn.mean().item() == pytest.approx(mean, abs=0.01)


@pytest.mark.parametrize("raw", [-400.0, -90.0, -3.0, 0.0005, 2.0, 90.0, 400.0])
def test_samples_of_a_continuous_bernoulli_have_its_distribution(raw: float) -> None:
    torch.manual_seed(0)
    samples = ContinuousBernoulli()(pixel(raw)).sample((20_000,)).flatten().numpy()
    x = np.sort(samples)
    # (e^(ηx) − 1) / (e^η − 1), and for η > 0 one minus that of 1 − x at −η, which cannot overflow
    cdf = np.expm1(raw * x) / np.expm1(raw) if raw < 0 else 1 - np.expm1(-raw * (1 - x)) / np.expm1(-raw)
    assert stats.kstest(cdf, "uniform").pvalue > 0.001


def test_continuous_bernoulli_is_the_cross_entropy_and_its_normaliser() -> None:
    raw, x = torch.linspace(-6, 6, 24).view(4, 1, 2, 3).double(), torch.rand(4, 1, 2, 3).double()
    p = raw.sigmoid()
    normaliser = (2 * torch.atanh(1 - 2 * p) / (1 - 2 * p)).log().sum((1, 2, 3))
    expected = Bernoulli()(raw).log_prob(x) + normaliser
    torch.testing.assert_close(ContinuousBernoulli()(raw).log_prob(x), expected)


def test_gaussian_is_the_normal_density_and_learns_its_scale() -> None:
    likelihood = Gaussian(scale=0.3).double()
    raw, x = torch.randn(2, 1, 2, 3).double(), torch.rand(2, 1, 2, 3).double()
    expected = stats.norm(raw.numpy(), 0.3).logpdf(x.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood(raw).log_prob(x).detach(), expected)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        (-likelihood(raw).log_prob(x).mean()).backward()
        optimizer.step()
    error = (raw - x).square().mean().sqrt().item()
    assert likelihood.log_scale().exp().item() == pytest.approx(error, rel=1e-3)


@pytest.mark.parametrize("pixel_scale", [255.0, 256.0])
@pytest.mark.parametrize("raw", [-3.0, 0.0, 0.5, 0.98, 7.0])
@pytest.mark.parametrize("scale", [0.003, 0.1, 2.0])
def test_discretized_logistic_sums_to_one_and_is_a_difference_of_cdfs(
    raw: float, scale: float, pixel_scale: float
) -> None:
    likelihood = DiscretizedLogistic(pixel_scale=pixel_scale, scale=scale).double()
    distribution, scale = likelihood(pixel(raw)), likelihood.log_scale().exp().item()  # which is kept in 32 bits
    levels = torch.arange(256).double() / pixel_scale
    found = distribution.log_prob(levels.view(-1, 1, 1, 1)).detach()
    assert found.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    edges = (np.arange(1, 256) - 0.5) / pixel_scale
    logistic = stats.logistic(raw, scale)
    expected = np.diff(np.concatenate([[0], logistic.cdf(edges), [1]]))
    np.testing.assert_allclose(found.exp(), expected, atol=1e-12)
    assert distribution.mean.item() == pytest.approx((expected * levels.numpy()).sum(), abs=0.6 / pixel_scale)
    assert set((distribution.sample((500,)) * pixel_scale).round().flatten().tolist()) <= set(range(256))


@pytest.mark.parametrize("likelihood", [Bernoulli(), ContinuousBernoulli(), Gaussian(), DiscretizedLogistic()])
def test_contract(likelihood: nn.Module) -> None:
    raw = (1000 * torch.randn(5, 2, 1, 2, 3)).requires_grad_()
    distribution: Independent = likelihood(raw)
    assert distribution.batch_shape == (5, 2)
    assert distribution.event_shape == (1, 2, 3)
    assert distribution.mean.shape == raw.shape
    for x in (torch.zeros(2, 1, 2, 3), torch.ones(2, 1, 2, 3), torch.full((2, 1, 2, 3), 128 / 255)):
        density = distribution.log_prob(x)
        assert density.isfinite().all()
        (gradient,) = torch.autograd.grad(density.sum(), raw, retain_graph=True)
        assert gradient.isfinite().all()
    assert distribution.sample().shape == raw.shape


@pytest.mark.parametrize("likelihood", [ContinuousBernoulli(), DiscretizedLogistic(scale=0.03), Gaussian(0.05)])
def test_32_bits_are_enough(likelihood: nn.Module) -> None:
    raw, x = torch.linspace(-30, 30, 600).view(100, 1, 2, 3), (torch.rand(100, 1, 2, 3) * 255).round() / 255
    double = likelihood.double()(raw.double()).log_prob(x.double()).float()
    torch.testing.assert_close(likelihood.float()(raw).log_prob(x), double, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("make", [lambda: Gaussian(0.0), lambda: DiscretizedLogistic(scale=-1.0)])
def test_scales_are_positive(make) -> None:
    with pytest.raises(ValueError, match="scale: .* got"):
        make()


def test_bits_per_dimension_of_noise_are_eight() -> None:
    """Nearly: a logistic variable is not uniform."""
    x = torch.randint(0, 256, (50, 1, 8, 8)) / 255
    likelihood = DiscretizedLogistic(scale=0.29)
    bits = -likelihood(torch.full_like(x, 0.5)).log_prob(x).mean().item() / (64 * math.log(2))
    assert 8.0 <= bits < 8.6
