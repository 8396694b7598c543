"""Flows and distributions on the sphere, in float64 against independent calculations."""

import math
from collections.abc import Callable, Iterator

import mpmath
import numpy as np
import pytest
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal, Transform, kl_divergence
from torch.nn.functional import normalize

from vae_lightning.distributions import Flow, SphericalUniform, VonMisesFisher
from vae_lightning.distributions.von_mises_fisher import _rule
from vae_lightning.posteriors import (
    FullCovarianceHead,
    InverseAutoregressiveHead,
    NeuralSplineHead,
    VonMisesFisherHead,
    moments,
    point,
)
from vae_lightning.priors import FlowPrior, GaussianMixture, Prior, TwoStage, VampPrior
from vae_lightning.rates import rate

FLOWS = {"iaf": InverseAutoregressiveHead, "nsf": NeuralSplineHead}
PRIORS: dict[str, Callable[[int], Prior]] = {
    "gaussian_mixture": lambda d: GaussianMixture(d, components=3),
    "gaussian_mixture, full": lambda d: GaussianMixture(d, components=3, full=True),
    "flow": lambda d: FlowPrior(d, hidden=(16,)),
    "flow, maf": lambda d: FlowPrior(d, kind="maf", hidden=(16,)),
}


@pytest.fixture(autouse=True)
def _in_double_precision() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def flow_posterior(name: str, latent_dim: int, images: int = 3) -> Flow:
    head = FLOWS[name](5, latent_dim, hidden=(16,), context=8)
    return head(torch.randn(images, 5))


def prior(name: str, latent_dim: int) -> Distribution:
    module = PRIORS[name](latent_dim)
    for parameter in module.parameters():
        parameter.data += (0.05 if name.startswith("flow") else 0.3) * torch.randn_like(parameter)
    if isinstance(module, FlowPrior):
        module.standardise(0.5 + 0.8 * torch.randn(50, latent_dim))
    return module.distribution()


def grid(dimensions: int, reach: float, steps: int) -> tuple[Tensor, float]:
    """Points of a cube, and the volume of a cell."""
    axis = torch.linspace(-reach, reach, steps)
    return torch.cartesian_prod(*[axis] * dimensions).reshape(-1, dimensions), (2 * reach / (steps - 1)) ** dimensions


SIZES = {1: (12.0, 2001), 2: (9.0, 181), 3: (6.0, 49)}  # reach and steps


@torch.no_grad()
def total(distribution: Distribution, dimensions: int) -> Tensor:
    """The integral of a density, for each of a batch."""
    points, volume = grid(dimensions, *SIZES[dimensions])
    points = points[:, None] if distribution.batch_shape else points
    return torch.cat([distribution.log_prob(part).exp() for part in points.split(20_000)]).sum(0) * volume


@pytest.mark.parametrize(("name", "dimensions"), [("iaf", 1), ("iaf", 2), ("iaf", 3), ("nsf", 1), ("nsf", 2)])
def test_densities_of_flow_posteriors_integrate_to_one(name: str, dimensions: int) -> None:
    found = total(flow_posterior(name, dimensions), dimensions)
    torch.testing.assert_close(found, torch.ones(3), rtol=0, atol=1e-2)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
@pytest.mark.parametrize("name", PRIORS)
def test_densities_of_priors_integrate_to_one(name: str, dimensions: int) -> None:
    assert total(prior(name, dimensions), dimensions).item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("name", FLOWS)
def test_flows_are_inverted_and_their_determinant_is_that_of_the_jacobian(name: str) -> None:
    posterior = flow_posterior(name, 4)
    u = 1.5 * torch.randn(3, 4)
    transform: Transform = posterior.transform
    z, log_slope = transform.call_and_ladj(u)
    torch.testing.assert_close(transform.inv(z), u, rtol=1e-8, atol=1e-8)
    jacobians = torch.autograd.functional.jacobian(lambda u: transform(u), u)
    found = torch.stack([jacobians[i, :, i].slogdet().logabsdet for i in range(3)])
    torch.testing.assert_close(log_slope, found)


@pytest.mark.parametrize("make", [*(lambda name=name: flow_posterior(name, 3) for name in FLOWS),
                                  lambda: prior("flow", 3), lambda: prior("flow, maf", 3)])  # fmt: skip
def test_a_flows_own_samples_have_the_density_of_any_others(make: Callable[[], Flow]) -> None:
    flow = make()
    for shape in ((), (5,)):
        z = flow.rsample(shape)
        own = flow.log_prob(z)
        torch.testing.assert_close(own, flow.log_prob(z.clone()), rtol=1e-8, atol=1e-8)
        earlier = z
    later = flow.rsample((5,))
    assert not torch.allclose(flow.log_prob(earlier), flow.log_prob(later))


def test_own_samples_are_not_inverted_and_others_have_their_own_gradients() -> None:
    """The density of a sample that was drawn without gradients depends on the parameters by the inverse, too."""
    head = InverseAutoregressiveHead(5, 3, hidden=(16,), context=8)
    features = torch.randn(2, 5)

    def gradient(z_of: Callable[[Flow], Tensor]) -> Tensor:
        flow = head(features)
        (found,) = torch.autograd.grad(flow.log_prob(z_of(flow)).sum(), head.base.mean.weight)
        return found

    drawn: list[Tensor] = []

    def sample(flow: Flow) -> Tensor:
        drawn.append(flow.sample())
        return drawn[0]

    torch.testing.assert_close(gradient(sample), gradient(lambda flow: drawn[0].clone()))
    flow = head(features)
    z = flow.rsample()
    flow.transform = None  # of no use any more
    assert flow.log_prob(z).shape == (2,)


def test_flow_densities_keep_32_bits_under_mixed_precision() -> None:
    torch.set_default_dtype(torch.float32)
    for head in (InverseAutoregressiveHead(5, 3), NeuralSplineHead(5, 3), FullCovarianceHead(5, 3),
                 VonMisesFisherHead(5, 3)):  # fmt: skip
        with torch.autocast("cpu", torch.bfloat16):
            posterior = head(torch.randn(4, 5))
            z = posterior.rsample()
            own, again = posterior.log_prob(z), posterior.log_prob(z.clone())
        assert z.dtype == own.dtype == torch.float32
        torch.testing.assert_close(own, again, rtol=0, atol=1e-4)


def test_importing_flows_leaves_pytorchs_validation_on() -> None:
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)


# On the sphere

KAPPAS = [1e-6, 0.01, 0.5, 1.0, 3.0, 10.0, 50.0, 300.0, 1e4, 1e6]


def fisher(dimensions: int, kappa: Tensor | float) -> VonMisesFisher:
    loc = torch.zeros(dimensions)
    loc[0] = 1
    return VonMisesFisher(loc, torch.as_tensor(kappa, dtype=torch.float64))


def test_training_may_follow_inference() -> None:
    """PyTorch does not differentiate through tensors that inference has made, as a kept rule of quadrature would be."""
    _rule.cache_clear()
    kappa = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    with torch.inference_mode():
        fisher(3, kappa).rsample()
    (gradient,) = torch.autograd.grad(fisher(3, kappa).rsample((5,)).sum() + fisher(3, kappa).entropy(), kappa)
    assert gradient.isfinite()


@pytest.mark.parametrize("dimensions", [2, 3, 4, 5, 16, 64, 128, 512])
def test_normaliser_and_mean_are_those_of_bessel_functions(dimensions: int) -> None:
    order = dimensions / 2 - 1
    with mpmath.workdps(50):
        for kappa in KAPPAS:
            k = torch.tensor(kappa, requires_grad=True)
            found = fisher(dimensions, k)
            bessel = mpmath.besseli(order, kappa)
            total = mpmath.log(bessel) + dimensions / 2 * mpmath.log(2 * mpmath.pi) - order * mpmath.log(kappa)
            ratio = float(mpmath.besseli(order + 1, kappa) / bessel)
            at_mode = found.log_prob(found.mode)
            assert -at_mode.item() == pytest.approx(float(total - kappa), rel=1e-13, abs=1e-12)
            assert found.mean[0].item() == pytest.approx(ratio, rel=1e-12)
            (slope,) = torch.autograd.grad(at_mode, k, retain_graph=True)  # of κ − log of the total
            assert slope.item() == pytest.approx(float(1 - mpmath.mpf(ratio)), abs=1e-12)
            curvature = torch.autograd.grad(found.mean[0], k)[0].item()
            expected = 1 - ratio**2 - (dimensions - 1) * ratio / kappa
            assert curvature == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_normaliser_is_scipys_too() -> None:
    kappa = torch.logspace(-1, 2.5, 30)
    for dimensions in (2, 5, 32):
        order = dimensions / 2 - 1
        found = VonMisesFisher(normalize(torch.ones(30, dimensions), dim=1), kappa)
        scaled = special.ive(order, kappa.numpy())
        expected = np.log(scaled) + dimensions / 2 * np.log(2 * np.pi) - order * np.log(kappa.numpy())
        np.testing.assert_allclose(-found.log_prob(found.mode), expected, rtol=1e-9)


def on_sphere(dimensions: int) -> tuple[Tensor, Tensor]:
    """Points of the circle or the sphere, and the areas around them."""
    longitude = (torch.arange(400) + 0.5) / 400 * 2 * math.pi
    if dimensions == 2:
        return torch.stack([longitude.cos(), longitude.sin()], 1), torch.full((400,), 2 * math.pi / 400)
    heights, weights = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(200))
    radius = (1 - heights**2).sqrt()
    points = torch.stack(
        [radius.outer(longitude.cos()), radius.outer(longitude.sin()), heights[:, None].expand(-1, 400)], -1
    )
    return points.reshape(-1, 3), (weights.repeat_interleave(400) * 2 * math.pi / 400)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_densities_on_the_sphere_integrate_to_one(dimensions: int) -> None:
    points, areas = on_sphere(dimensions)
    loc = normalize(torch.randn(4, dimensions), dim=1)
    posterior = VonMisesFisher(loc, torch.tensor([0.0, 0.7, 5.0, 60.0]))
    density = posterior.log_prob(points.unsqueeze(1)).exp() * areas.unsqueeze(1)
    torch.testing.assert_close(density.sum(0), torch.ones(4))
    mean = density.T @ points
    torch.testing.assert_close(mean, posterior.mean, rtol=1e-7, atol=1e-9)
    second = torch.einsum("nb,ni,nj->bij", density, points, points)
    covariance = second - mean.unsqueeze(2) * mean.unsqueeze(1)
    torch.testing.assert_close(covariance, posterior.covariance_matrix, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2), posterior.variance, rtol=1e-7, atol=1e-9)
    uniform = SphericalUniform(torch.zeros(dimensions))
    assert (uniform.log_prob(points).exp() * areas).sum().item() == pytest.approx(1)
    logs = posterior.log_prob(points.unsqueeze(1))
    torch.testing.assert_close(posterior.entropy(), -(density * logs).sum(0))
    divergence = (density * (logs - uniform.log_prob(points).unsqueeze(1))).sum(0)
    torch.testing.assert_close(kl_divergence(posterior, uniform), divergence, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("dimensions", [3, 128])
def test_the_uniform_limit(dimensions: int) -> None:
    uniform, flat = SphericalUniform(torch.zeros(dimensions)), fisher(dimensions, 0.0)
    z = flat.rsample((2000,))
    torch.testing.assert_close(flat.log_prob(z), uniform.log_prob(z))
    assert kl_divergence(flat, uniform).item() == pytest.approx(0, abs=1e-9)
    for samples in (z, uniform.sample((2000,))):
        torch.testing.assert_close(samples.norm(dim=1), torch.ones(2000))
        assert samples.mean(0).norm() < 4 / 2000**0.5
        torch.testing.assert_close(samples.T @ samples / 2000, torch.eye(dimensions) / dimensions, rtol=0, atol=0.04)
    torch.testing.assert_close(torch.diag(uniform.variance), torch.eye(dimensions) / dimensions)


def test_angles_are_the_exact_quantiles_in_three_dimensions() -> None:
    """There the cosine w of the angle has a distribution function that can be inverted by hand."""
    kappa = torch.logspace(-3, 5, 1000).requires_grad_()
    posterior = VonMisesFisher(normalize(torch.ones(1000, 3), dim=1), kappa)
    torch.manual_seed(1)
    noise = torch.randn(1000, 4)
    torch.manual_seed(1)
    cosine = (posterior.rsample() * posterior.loc).sum(1)
    expected = 1 + (torch.special.ndtr(noise[:, 3]) * torch.expm1(-2 * kappa)).log1p() / kappa
    torch.testing.assert_close(cosine, expected, rtol=0, atol=1e-12)
    found, exact = (torch.autograd.grad(w.sum(), kappa)[0] for w in (cosine, expected))
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-11)


@pytest.mark.parametrize("dimensions", [2, 5, 40])
def test_angles_have_the_distribution_that_the_density_says(dimensions: int) -> None:
    """Kolmogorov and Smirnov's test against an integral by the midpoint rule."""
    for kappa in (0.3, 6.0, 200.0):
        cosines = fisher(dimensions, kappa).rsample((4000,))[:, 0].sort().values
        angles = (torch.arange(200_000) + 0.5) / 200_000 * math.pi
        density = kappa * (angles.cos() - 1) + torch.xlogy(dimensions - 2, angles.sin())
        function = density.sub(density.max()).exp().cumsum(0)
        at = np.interp(cosines.acos().flip(0), angles, function / function[-1])
        expected = (np.arange(4000) + 0.5) / 4000
        assert np.abs(at - expected).max() < 1.63 / 4000**0.5  # at 1 %


def test_gradients_of_samples_are_those_of_an_expectation_known_in_closed_form() -> None:
    """E[a·z + (b·z)²] for κ and μ, against its derivatives and against finite differences of it."""
    d = 4
    kappa, raw = torch.tensor(3.0, requires_grad=True), torch.tensor([0.5, -1.0, 0.3, 0.8], requires_grad=True)
    a, b = torch.tensor([1.0, 0.5, -0.2, 0.1]), torch.tensor([0.3, 1.0, 0.4, -0.7])

    def expectation(kappa: Tensor, raw: Tensor) -> Tensor:
        loc = normalize(raw, dim=0)
        ratio = torch.from_numpy(special.ive(d / 2, kappa.numpy()[None]) / special.ive(d / 2 - 1, kappa.numpy()[None]))[
            0
        ]
        across = ratio / kappa
        along = 1 - (d - 1) * across
        return ratio * (a @ loc) + across * (b @ b - (b @ loc) ** 2) + along * (b @ loc) ** 2

    z = VonMisesFisher(normalize(raw, dim=0), kappa).rsample((100_000,))
    estimate = (z @ a + (z @ b) ** 2).mean()
    found = torch.cat([g.reshape(-1) for g in torch.autograd.grad(estimate, [kappa, raw])])
    plain, step = torch.cat([kappa.detach().reshape(1), raw.detach()]), 1e-5
    differences = []
    for i in range(5):
        up, down = plain.clone(), plain.clone()
        up[i] += step
        down[i] -= step
        differences.append((expectation(up[0], up[1:]) - expectation(down[0], down[1:])) / (2 * step))
    assert estimate.item() == pytest.approx(expectation(plain[0], plain[1:]).item(), abs=0.008)
    torch.testing.assert_close(found, torch.stack(differences), rtol=0, atol=0.012)


def test_single_precision_is_enough_on_the_sphere() -> None:
    """Even in the tails nothing is NaN, and densities are those of double precision."""
    loc = normalize(torch.randn(200, 16), dim=1)
    kappa = torch.logspace(-4, 6, 200)
    single = VonMisesFisher(loc.float(), kappa.float().requires_grad_())
    z = single.rsample((200,))
    exact = VonMisesFisher(loc, kappa).log_prob(z.double())
    torch.testing.assert_close(single.log_prob(z).double(), exact, rtol=1e-4, atol=1e-3)
    (gradient,) = torch.autograd.grad(z.square()[..., 0].sum() + single.log_prob(z).sum(), single.concentration)
    assert gradient.isfinite().all()


def test_point_and_moments_on_the_sphere() -> None:
    posterior = VonMisesFisherHead(5, 6)(torch.randn(3, 5))
    torch.testing.assert_close(point(posterior).norm(dim=1), torch.ones(3))
    z = posterior.sample((30_000,))
    mean, covariance = moments(posterior)
    torch.testing.assert_close(z.mean(0), mean, rtol=0, atol=0.01)
    centred = z - z.mean(0)
    torch.testing.assert_close(torch.einsum("nbi,nbj->bij", centred, centred) / 30_000, covariance, rtol=0, atol=0.01)


# Full covariance, and priors


def test_full_covariance_against_samples_and_the_closed_form() -> None:
    head = FullCovarianceHead(5, 4)
    posterior = head(torch.randn(3, 5))
    assert (posterior.covariance_matrix[:, 0, 1].abs() > 1e-3).all()
    prior = Independent(Normal(torch.ones(4), torch.tensor([1.0, 2.0, 0.5, 1.5])), 1)
    full = MultivariateNormal(prior.mean, torch.diag(prior.variance))
    found = kl_divergence(posterior, prior)
    torch.testing.assert_close(found, kl_divergence(posterior, full.expand((3,))))
    z = posterior.sample((200_000,))
    estimate = (posterior.log_prob(z) - prior.log_prob(z)).mean(0)
    torch.testing.assert_close(found, estimate, rtol=0.01, atol=0.02)


def test_the_closed_form_is_for_normal_priors_alone() -> None:
    posterior = FullCovarianceHead(5, 2)(torch.randn(3, 5))
    laplace = Independent(torch.distributions.Laplace(torch.zeros(2), torch.ones(2)), 1)
    z = posterior.sample()
    torch.testing.assert_close(rate(posterior, laplace, z), posterior.log_prob(z) - laplace.log_prob(z))


@pytest.mark.parametrize("name", PRIORS)
def test_samples_of_priors_have_their_density(name: str) -> None:
    """The entropy of samples against its integral, and their mean."""
    distribution = prior(name, 2)
    points, volume = grid(2, 10.0, 201)
    with torch.no_grad():
        logs = distribution.log_prob(points)
        weights = logs.exp() * volume
        z = distribution.sample((40_000,))
        torch.testing.assert_close(distribution.log_prob(z).mean(), (weights * logs).sum(), rtol=0, atol=0.05)
    torch.testing.assert_close(z.mean(0), weights @ points, rtol=0, atol=0.05)


def test_the_second_stage_bounds_the_density_it_samples_from() -> None:
    torch.manual_seed(3)
    stage = TwoStage(1, hidden=(8,))
    x = torch.randn(5, 1)
    plain = stage.encode(x).mean
    stage.standardise(2 + 3 * torch.randn(100, 1))
    torch.testing.assert_close(stage.encode(stage.location + stage.scale * x).mean, plain)
    distribution = stage.distribution()
    z = torch.linspace(-6, 10, 9).unsqueeze(1)
    latent = torch.linspace(-8, 8, 4001).unsqueeze(1)
    joint = stage.decode(latent).log_prob(z.unsqueeze(1)) + distribution.latent.log_prob(latent)
    exact = joint.logsumexp(1) + math.log(16 / 4000)
    posterior = stage.encode(z)
    # E_q log p(z|u) of the bound, by the same quadrature
    q = posterior.log_prob(latent.unsqueeze(1)).exp() * 16 / 4000
    expected = (q * stage.decode(latent.unsqueeze(1)).log_prob(z)).sum(0)
    divergence = kl_divergence(posterior, distribution.latent)
    with torch.no_grad():
        estimates = distribution.log_prob(z.expand(4000, 9, 1))
        torch.testing.assert_close(estimates.mean(0), expected - divergence, rtol=0, atol=0.1)
        assert (expected - divergence < exact).all()
        samples = distribution.sample((20_000,))
    function = stage.decode(latent).mean
    weights = distribution.latent.log_prob(latent).exp() * 16 / 4000
    assert samples.mean().item() == pytest.approx((weights @ function).item(), abs=0.1)


@pytest.mark.parametrize("head", [VonMisesFisherHead, InverseAutoregressiveHead])
def test_vamp_is_a_mixture_of_any_posterior(head: type) -> None:
    encoder = torch.nn.Sequential(torch.nn.Flatten(), head(16, 3))
    vamp = VampPrior((1, 4, 4), components=5)
    vamp.attach(encoder)
    distribution = vamp.distribution()
    z = distribution.sample((7,)).detach()
    components = encoder(vamp.pseudo_inputs.sigmoid())
    expected = components.log_prob(z.unsqueeze(1)).logsumexp(1) - math.log(5)
    torch.testing.assert_close(distribution.log_prob(z), expected)
