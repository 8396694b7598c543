"""Likelihoods in float64: they integrate or sum to one, agree with their formulas, and stay finite at the ends."""

import math
from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import pytest
import torch
from scipy import integrate, special, stats
from torch import nn
from torch.distributions import Bernoulli as PixelBernoulli

from vae_lightning.likelihoods import (
    Bernoulli,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Gaussian,
    Likelihood,
    LogisticMixture,
    OptimalGaussian,
)

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


def test_gradients_of_a_continuous_bernoulli_are_finite() -> None:
    raw = torch.tensor([-400.0, -90.0, -3.0, 0.0, 2.0, 90.0, 400.0]).view(-1, 1, 1, 1).requires_grad_()
    distribution = ContinuousBernoulli()(raw)
    variance = distribution.sample((50_000,)).var(0)
    (slope,) = torch.autograd.grad(distribution.mean.sum(), raw)  # d mean / d η of an exponential family: its variance
    torch.testing.assert_close(slope, variance, rtol=0.05, atol=1e-5)
    (slope,) = torch.autograd.grad(ContinuousBernoulli()(raw).log_prob(torch.full_like(raw, 0.3)).sum(), raw)
    torch.testing.assert_close(slope, 0.3 - distribution.mean.detach())


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


def mixture_of_cdfs(raw: np.ndarray, channels: int, components: int, pixel_scale: float) -> Callable:
    """Probabilities of the 256 levels of a channel of one pixel, given levels of the earlier ones, by scipy.

    Written from PixelCNN++'s equations 2 and 3, on its scale from −1 to 1.
    """
    weights = special.softmax(raw[:components])
    of_component = raw[components:].reshape(components, -1)
    locations, scales, coefficients = np.split(of_component, [channels, 2 * channels], 1)
    coefficients, scales = np.tanh(coefficients), np.exp(scales)
    edges = 2 * (np.arange(1, 256) - 0.5) / pixel_scale - 1

    def level(k: int, channel: int, earlier: Sequence[int]) -> np.ndarray:
        location = locations[k, channel]
        for number, before in enumerate(earlier):
            location += coefficients[k, channel * (channel - 1) // 2 + number] * (2 * before / pixel_scale - 1)
        return np.diff(np.concatenate([[0], stats.logistic(location, scales[k, channel]).cdf(edges), [1]]))

    def probabilities(channel: int, *earlier: int) -> np.ndarray:
        joint = np.zeros(256)
        for k in range(components):
            given = prod(level(k, before, earlier[:before])[value] for before, value in enumerate(earlier))
            joint += weights[k] * given * level(k, channel, earlier)
        return joint / joint.sum()

    return probabilities


@pytest.mark.parametrize("pixel_scale", [255.0, 256.0])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_logistic_mixture_of_grey_sums_to_one_and_is_a_difference_of_cdfs(spread: float, pixel_scale: float) -> None:
    likelihood = LogisticMixture(components=4, pixel_scale=pixel_scale)
    raw = spread * torch.randn(12, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    levels = torch.arange(256).double() / pixel_scale
    distribution = likelihood(raw)
    found = distribution.log_prob(levels.view(-1, 1, 1, 1)).exp()
    assert found.sum().item() == pytest.approx(1, abs=1e-9)
    expected = mixture_of_cdfs(raw.flatten().numpy(), 1, 4, pixel_scale)(0)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert distribution.mean.item() == pytest.approx((expected * levels.numpy()).sum(), abs=0.6 / pixel_scale)
    torch.manual_seed(0)
    drawn = (distribution.sample((20_000,)) * pixel_scale).flatten()
    torch.testing.assert_close(drawn, drawn.round(), atol=1e-4, rtol=0)
    shares = drawn.round().long().bincount(minlength=256).numpy() / 20_000
    assert np.abs(np.cumsum(shares) - np.cumsum(expected)).max() < 1.95 / 20_000**0.5  # Kolmogorov: 0.1 %


@pytest.mark.parametrize("spread", [0.5, 2.0])
def test_logistic_mixture_of_colour_sums_to_one_by_the_chain_rule(spread: float) -> None:
    """p(red), p(green | red) and p(blue | red, green), for levels at the ends and between."""
    likelihood, generator = LogisticMixture(components=3), torch.Generator().manual_seed(1)
    assert (likelihood.raw_channels(1), likelihood.raw_channels(3)) == (9, 30)
    raw = spread * torch.randn(30, 1, 1, generator=generator, dtype=torch.float64)
    probabilities = mixture_of_cdfs(raw.flatten().numpy(), 3, 3, 255.0)
    every = torch.arange(256)
    red = probabilities(0)
    whole = 0.0
    for r, g in [(0, 0), (255, 31), (90, 200)]:
        green, blue = probabilities(1, r), probabilities(2, r, g)
        x = torch.stack([torch.full((256,), r), torch.full((256,), g), every], 1).view(256, 3, 1, 1).double() / 255
        found = likelihood(raw).log_prob(x).exp().numpy()
        np.testing.assert_allclose(found, red[r] * green[g] * blue, rtol=1e-9, atol=1e-15)
        # Over all of blue, what remains is p(red, green).
        assert found.sum() == pytest.approx(red[r] * green[g], rel=1e-9)
    for r in range(256):  # and over all of green and blue, p(red); over all three, one
        if r % 50 == 0:
            x = torch.cartesian_prod(torch.tensor([r]), every, every).view(-1, 3, 1, 1).double() / 255
            assert likelihood(raw).log_prob(x).exp().sum().item() == pytest.approx(red[r], rel=1e-9)
        whole += red[r]
    assert whole == pytest.approx(1, abs=1e-12)


def test_samples_of_a_colour_mixture_have_its_mean_and_its_dependence() -> None:
    """Where scales are small and nothing is cut off, means are exact and colours move together."""
    likelihood = LogisticMixture(components=2)
    raw = torch.zeros(20, 1, 1)
    raw[0], raw[1] = 0.4, -0.4
    of_component = raw[2:].view(2, 9)
    of_component[:, :3] = torch.tensor([[-0.3, 0.1, 0.2], [0.3, -0.2, 0.0]])
    of_component[:, 3:6] = -4
    of_component[:, 6:] = torch.tensor([2.0, -1.0, 0.5])
    distribution = likelihood(raw)
    torch.manual_seed(0)
    drawn = distribution.sample((40_000,)).flatten(1)
    torch.testing.assert_close(drawn.mean(0), distribution.mean.flatten(), atol=3e-3, rtol=0)
    first = drawn[drawn[:, 0] < 0.5]
    slope = torch.cov(first.T)[0, 1] / torch.cov(first.T)[0, 0]
    assert slope.item() == pytest.approx(math.tanh(2), abs=0.03)
    x = drawn[:1000].view(-1, 3, 1, 1)
    assert distribution.expand((1000,)).log_prob(x).shape == (1000,)
    # Each image is as likely as it is often drawn: the entropy is the mean of −log p.
    assert distribution.log_prob(x).mean() > distribution.log_prob(x.flip(1)).mean()


@pytest.mark.parametrize("samples", [(), (2,)])
def test_no_scale_is_better_than_the_optimal_one(samples: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    raw, x = torch.randn(*samples, 4, 1, 2, 3, dtype=torch.float64), torch.rand(4, 1, 2, 3, dtype=torch.float64)
    likelihood = OptimalGaussian().double()

    def found(raw: torch.Tensor) -> torch.Tensor:
        return likelihood(raw).log_prob(x)

    residual = (x - raw).numpy()
    best = np.sqrt((residual**2).mean())
    expected = stats.norm(scale=best).logpdf(residual).sum((-3, -2, -1))
    np.testing.assert_allclose(found(raw).numpy(), expected)
    for scale in (0.9 * best, 1.1 * best):
        assert stats.norm(scale=scale).logpdf(residual).sum() < expected.sum()
    # The scale counts as a constant for gradients, and yet they are those of the sum over the batch.
    assert torch.autograd.gradcheck(lambda raw: found(raw).sum(), raw.requires_grad_())


def test_the_optimal_scale_of_evaluation_is_a_running_mean() -> None:
    likelihood, expected = OptimalGaussian(momentum=0.4).double(), 0.0
    for step in range(4):
        raw, x = torch.rand(2, 3, 1, 2, 3, dtype=torch.float64)
        likelihood(raw).log_prob(x)
        weight = max(0.4, 1 / (step + 1))
        expected = (1 - weight) * expected + weight * (x - raw).square().mean().item()
        assert likelihood.variance.item() == pytest.approx(expected)
    likelihood.eval()
    before = {name: value.clone() for name, value in likelihood.state_dict().items()}
    density = likelihood(raw).log_prob(x)
    np.testing.assert_allclose(
        density.numpy(), stats.norm(raw.numpy(), math.sqrt(expected)).logpdf(x.numpy()).sum((1, 2, 3))
    )
    assert all(torch.equal(value, before[name]) for name, value in likelihood.state_dict().items())
    assert set(before) == {"batches", "variance"}
    assert likelihood.train()(x).log_prob(x).isfinite().all()  # as if there were no error at all
    with pytest.raises(ValueError, match="momentum: .* got 0"):
        OptimalGaussian(momentum=0)


def test_a_mixture_says_how_many_channels_it_needs() -> None:
    with pytest.raises(ValueError, match=r"returns 7 channels; .* grey images .* needs 15, of colour images 50"):
        LogisticMixture(components=5)(torch.zeros(2, 7, 4, 4))
    with pytest.raises(ValueError, match="components: .* got 0"):
        LogisticMixture(components=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "likelihood",
    [Bernoulli(), ContinuousBernoulli(), Gaussian(), OptimalGaussian(), DiscretizedLogistic(), LogisticMixture(4)],
)
def test_contract(likelihood: Likelihood, channels: int) -> None:
    raw = (1000 * torch.randn(5, 2, likelihood.raw_channels(channels), 2, 3)).requires_grad_()
    distribution = likelihood(raw)
    shape = (channels, 2, 3)
    assert distribution.batch_shape == (5, 2)
    assert distribution.event_shape == shape
    assert distribution.mean.shape == (5, 2, *shape)
    assert distribution.expand((7, 5, 2)).sample().shape == (7, 5, 2, *shape)
    for x in (torch.zeros(2, *shape), torch.ones(2, *shape), torch.full((2, *shape), 128 / 255)):
        density = distribution.log_prob(x)
        assert density.isfinite().all()
        (gradient,) = torch.autograd.grad(density.sum(), raw, retain_graph=True)
        assert gradient.isfinite().all()
    assert distribution.sample((3,)).shape == (3, 5, 2, *shape)


def test_32_bits_are_enough_for_mixtures() -> None:
    """Also where scales are a small part of a level, or levels an even smaller part of the scale."""
    raw, generator = torch.empty(200, 100, 2, 3), torch.Generator().manual_seed(0)
    raw.normal_(0, 4, generator=generator)
    x = (torch.rand(200, 3, 2, 3, generator=generator) * 255).round() / 255
    likelihood = LogisticMixture()
    torch.testing.assert_close(
        likelihood(raw).log_prob(x), likelihood(raw.double()).log_prob(x.double()).float(), rtol=1e-4, atol=1e-3
    )


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
