"""The loss, its terms and the samplers, in float64 against independent calculations."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from small_models import PIXELS, D, LinearGaussian, SmallModel, seeded, small_images, small_model
from torch import Tensor, nn
from torch.distributions import Independent, Laplace, Normal, StudentT, kl_divergence

from vae_lightning.data.batch import Batch
from vae_lightning.engine.batch_norm import SharedBatchNorms
from vae_lightning.metrics.bounds import importance_weighted_bound, importance_weights
from vae_lightning.objectives import (
    CIWAE,
    DIPI,
    DIPII,
    ELBO,
    GECO,
    IWAE,
    MIWAE,
    MMD,
    MSSSIM,
    PIWAE,
    RAEGP,
    RAEL2,
    TC,
    VAEGAN,
    WAEMMD,
    Adversarial,
    Annealed,
    AsPrinted,
    Beta,
    DReG,
    Factor,
    FreeBits,
    Objective,
)
from vae_lightning.objectives.mmd import squared_mmd
from vae_lightning.posteriors import FullCovarianceHead
from vae_lightning.priors import StandardNormal, VampPrior
from vae_lightning.rates import rates


@pytest.fixture
def model() -> SmallModel:
    return small_model()


@pytest.fixture
def images() -> Tensor:
    return small_images()


def test_rate_is_the_chapters_formula(model: SmallModel, images: Tensor) -> None:
    features = images.flatten(1)
    mean, log_variance = model.head.mean(features), model.head.log_variance(features)
    expected = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(ELBO()(model, Batch(images))["rate"], expected)


def test_rate_agrees_with_monte_carlo() -> None:
    torch.manual_seed(0)
    mean, deviation = torch.tensor([0.7, -1.2, 0.1]).double(), torch.tensor([0.5, 1.4, 0.9]).double()
    posterior = Independent(Normal(mean, deviation), 1)
    prior = StandardNormal(3).double().distribution()
    z = posterior.sample((400_000,))
    log_ratio = posterior.log_prob(z) - prior.log_prob(z)
    error = log_ratio.std() / math.sqrt(len(z))
    assert (log_ratio.mean() - kl_divergence(posterior, prior)).abs() < 4 * error


def test_distortion_is_the_cross_entropy_summed_over_pixels(model: SmallModel, images: Tensor) -> None:
    torch.manual_seed(3)
    terms = ELBO()(model, Batch(images))
    torch.manual_seed(3)
    p = model.decoder(model.encode(images).rsample()).sigmoid().view_as(images)
    expected = -(images * p.log() + (1 - images) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(terms["distortion"], expected)
    torch.testing.assert_close(terms["loss"], expected + terms["rate"])


@pytest.mark.parametrize("log_variance", [-3.0, 0.0, 1.5])
def test_samplers_have_the_spread_that_they_should(log_variance: float) -> None:
    torch.manual_seed(0)
    deviation = math.exp(0.5 * log_variance)
    posterior = Independent(
        Normal(torch.full((200_000, 1), 2.0, dtype=torch.float64), torch.tensor(deviation).double()), 1
    )
    right, printed = ELBO().sample(posterior), AsPrinted().sample(posterior)
    for sample, spread in [(right, deviation), (printed, abs(0.5 * log_variance))]:
        assert sample.mean().item() == pytest.approx(2.0, abs=5 * spread / 400 + 1e-12)
        assert sample.std().item() == pytest.approx(spread, rel=0.01, abs=1e-12)


class Loss(nn.Module):
    """A model's summed loss as a function of its parameters, with the same noise in every call."""

    def __init__(self, model: SmallModel, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective.double()

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(5)
        return self.objective(self.model, Batch(x))["loss"].sum()


# All but DReG, whose gradients are those of its loss only on average, and MSSSIM, for which these images are too small.
OBJECTIVES = [
    *(ELBO(), Beta(2.5), Annealed(4), FreeBits(0.3), IWAE(3), MMD(0.3, 20.0), TC(3.0), AsPrinted()),
    *(MIWAE(2, 3), PIWAE(2, 3), CIWAE(0.3, 4), DIPI(3.0, 5.0), DIPII(3.0, 5.0), WAEMMD(20.0), RAEL2(), RAEGP(), GECO()),
    *(Factor(D, units=4, layers=2), Adversarial(D, units=4), VAEGAN((1, 2, 3), width=2)),
]
OTHERS = (Annealed, MIWAE, CIWAE, DIPI, RAEGP, VAEGAN)  # which take long, or differ little from another


@pytest.mark.parametrize(
    "objective",
    [pytest.param(found, marks=[pytest.mark.slow] * isinstance(found, OTHERS)) for found in OBJECTIVES],
    ids=lambda objective: type(objective).__name__,
)
def test_gradients_agree_with_finite_differences(objective: Objective, model: SmallModel, images: Tensor) -> None:
    loss = Loss(model, objective)
    names, values = zip(*loss.named_parameters(), strict=True)

    def of_parameters(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(loss, dict(zip(names, parameters, strict=True)), (images,))

    assert torch.autograd.gradcheck(of_parameters, values)


def test_annealing_rises_and_repeats() -> None:
    linear, cyclic = Annealed(steps=4, beta=2.0), Annealed(steps=8, cycles=2, ramp=0.5)
    weights: list[list[float]] = [[], []]
    for _ in range(10):
        for objective, found in zip((linear, cyclic), weights, strict=True):
            found.append(objective.weight.item())
            objective.advance()
    assert weights[0] == [0.0, 0.5, 1.0, 1.5] + [2.0] * 6
    assert weights[1] == [0.0, 0.5, 1.0, 1.0] * 2 + [1.0] * 2
    restored = Annealed(steps=4, beta=2.0)
    restored.load_state_dict({"taken": torch.tensor(3)})
    assert restored.weight.item() == 1.5


def test_annealing_weighs_the_rate(model: SmallModel, images: Tensor) -> None:
    objective = Annealed(steps=4)
    objective.advance()
    terms = objective(model, Batch(images))
    torch.testing.assert_close(terms["loss"], terms["distortion"] + 0.25 * terms["rate"])


def test_dependent_dimensions_are_one_group_of_free_bits(images: Tensor) -> None:
    """Single dimensions' rates would add up to less than the rate."""

    class Dependent(SmallModel):
        def __init__(self) -> None:
            super().__init__()
            self.head = FullCovarianceHead(PIXELS, D)

    torch.manual_seed(1)
    model = Dependent().double()
    rates = kl_divergence(model.encode(images), model.prior_distribution())
    for nats, least in ((1e-9, rates.mean()), (2 * rates.mean().item() / D, 2 * rates.mean())):
        terms = FreeBits(nats)(model, Batch(images))
        torch.testing.assert_close(terms["rate"], rates)
        torch.testing.assert_close(terms["loss"] - terms["distortion"], least.expand(len(images)))


def test_estimated_rates_have_the_gradient_of_the_rate() -> None:
    torch.manual_seed(0)
    location = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor([0.8], dtype=torch.float64)
    posterior = Independent(Laplace(location.expand(200_000, 1), scale), 1)
    prior = Independent(StudentT(5 * torch.ones(1, dtype=torch.float64)), 1)  # for which there is no closed form
    (found,) = torch.autograd.grad(rates(posterior, prior).mean(), location)
    # The entropy does not depend on the location: what is left is E[−d/dz log p(z)].
    z = torch.linspace(-25, 25, 100_001, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(-prior.base_dist.log_prob(z).sum(), z)
    expected = (Laplace(0.7, scale).log_prob(z).exp() * slope).sum() * 50 / 100_000
    assert found.item() == pytest.approx(expected.item(), abs=0.005)


def test_free_bits_are_free(model: SmallModel, images: Tensor) -> None:
    features = images.flatten(1)
    mean, log_variance = model.head.mean(features), model.head.log_variance(features)
    rates = -0.5 * (1 + log_variance - mean**2 - log_variance.exp())
    middle = rates.mean(0).median().item()
    terms = FreeBits(middle)(model, Batch(images))
    torch.testing.assert_close(terms["rate"], rates.sum(1))
    paid = sum(max(middle, rates[:, j].mean().item()) for j in range(D))
    torch.testing.assert_close(terms["loss"], terms["distortion"] + paid)
    terms = FreeBits(1e-9)(model, Batch(images))
    torch.testing.assert_close(terms["loss"].mean(), (terms["distortion"] + terms["rate"]).mean())


def test_iwae_is_the_formula_and_its_bound_is_tighter(model: SmallModel, images: Tensor) -> None:
    torch.manual_seed(3)
    terms = IWAE(5)(model, Batch(images))
    torch.manual_seed(3)
    posterior, prior = model.encode(images), model.prior.distribution()
    z = posterior.rsample((5,))
    weights = (model.decode(z).log_prob(images) + prior.log_prob(z) - posterior.log_prob(z)).exp()
    torch.testing.assert_close(terms["loss"], -weights.mean(0).log())
    torch.testing.assert_close(terms["distortion"] + terms["rate"], -weights.log().mean(0))
    assert (terms["loss"] < terms["distortion"] + terms["rate"]).all()


def test_mmd_is_the_double_sum(model: SmallModel, images: Tensor) -> None:
    objective = MMD(alpha=0.3, weight=20.0)
    terms, z, _ = seeded(objective, model, images)
    drawn = model.prior.distribution().sample((len(images),))  # the seed stands where the objective drew them

    def kernel(a: Tensor, b: Tensor) -> float:
        return math.exp(-((a - b) ** 2).sum().item() / (2 * D))

    count = len(images)
    apart = [(i, j) for i in range(count) for j in range(count) if i != j]
    within = sum(kernel(points[i], points[j]) for points in (z, drawn) for i, j in apart) / len(apart)
    across = sum(kernel(a, b) for a in z for b in drawn) / count**2
    expected = terms["distortion"] + 0.7 * terms["rate"] + (0.3 + 20 - 1) * (within - 2 * across)
    torch.testing.assert_close(terms["loss"], expected)


def test_mmd_tells_distributions_apart() -> None:
    torch.manual_seed(0)
    one, same, other = torch.randn(3, 1000, 2).double() + torch.tensor([0, 0, 1.0]).double().view(3, 1, 1)
    assert abs(squared_mmd(one, same).item()) < 0.005 < 0.1 < squared_mmd(one, other).item()


def test_total_correlation_is_the_double_loop(model: SmallModel, images: Tensor) -> None:
    terms, z, mean = seeded(TC(3.0), model, images)
    deviation = model.encode(images).stddev
    count, total = len(images), torch.zeros(len(images), dtype=torch.float64)
    for i in range(count):
        density = [
            [Normal(mean[j, k], deviation[j, k]).log_prob(z[i, k]).exp() for k in range(D)] for j in range(count)
        ]
        joint = sum(math.prod(row) for row in density) / count
        marginals = math.prod(sum(density[j][k] for j in range(count)) / count for k in range(D))
        total[i] = (joint / marginals).log()
    torch.testing.assert_close(terms["loss"], terms["distortion"] + terms["rate"] + 2 * total)
    torch.testing.assert_close(TC(1.0)(model, Batch(images))["rate"], terms["rate"])


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: type(objective).__name__)
def test_a_single_image_will_do(objective: Objective, model: SmallModel, images: Tensor) -> None:
    assert objective.double()(model, Batch(images[:1]))["loss"].isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FreeBits(-1), "nats"), (lambda: IWAE(0), "samples"), (lambda: MMD(0.5, 0.1), "weight"),
        (lambda: TC(-1), "beta"), (lambda: Annealed(0), "steps"), (lambda: Annealed(5, ramp=0), "ramp"),
        (lambda: MIWAE(0), "bounds"), (lambda: PIWAE(2, 0), "samples"), (lambda: CIWAE(1.1), "beta"),
        (lambda: DReG(0), "samples"), (lambda: Factor(2, gamma=-1), "gamma"), (lambda: Factor(2, layers=0), "layers"),
        (lambda: DIPI(-1), "off_diagonal"), (lambda: DIPII(1, -1), "diagonal"), (lambda: WAEMMD(-1), "weight"),
        (lambda: WAEMMD(1, []), "scales"), (lambda: WAEMMD(1, [0]), "scales"), (lambda: MSSSIM(-1), "weight"),
        (lambda: Adversarial(2, -1), "weight"), (lambda: Adversarial(2, units=0), "units"),
        (lambda: VAEGAN((1, 2, 3), -1), "gamma"), (lambda: VAEGAN((1, 2, 3), width=0), "width"),
        (lambda: RAEL2(-1), "beta"), (lambda: RAEGP(1, -1), "weight"), (lambda: GECO(0), "tolerance"),
        (lambda: GECO(smoothing=1), "smoothing"), (lambda: GECO(speed=0), "speed"),
    ],
)  # fmt: skip
def test_options_out_of_range(make: Callable[[], ELBO], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message}: .* got"):
        make()


def test_the_elbo_of_an_exact_posterior_is_the_likelihood(images: Tensor) -> None:
    model = LinearGaussian(exact=True)
    exact = model.log_likelihood(images)
    for objective in (IWAE(1), IWAE(7)):  # each weight is the likelihood itself
        torch.testing.assert_close(-objective(model, Batch(images))["loss"], exact, rtol=1e-4, atol=0)
    torch.testing.assert_close(importance_weighted_bound(model, Batch(images), 1), exact, rtol=1e-4, atol=0)
    torch.manual_seed(0)  # the rate is exact, the distortion that of a sample
    elbo = -ELBO()(model, Batch(images.repeat(20_000, 1, 1, 1)))["loss"].view(20_000, -1).mean(0)
    torch.testing.assert_close(elbo, exact, rtol=0, atol=0.05)


def test_the_importance_weighted_bound_rises_to_the_likelihood(images: Tensor) -> None:
    model = LinearGaussian(exact=False)
    torch.manual_seed(0)
    exact = model.log_likelihood(images)
    many = images.repeat(500, 1, 1, 1)
    gaps = []
    for samples in (1, 4, 16, 64):
        bound = importance_weighted_bound(model, Batch(many), samples).view(500, -1).mean(0)
        gaps.append((exact - bound).mean().item())
    elbo = -torch.stack([ELBO()(model, Batch(images))["loss"] for _ in range(500)]).mean(0)
    assert gaps[0] == pytest.approx((exact - elbo).mean().item(), abs=0.2)
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[-1] > -0.02
    converged = importance_weighted_bound(model, Batch(images), 400_000, at_once=40_000)
    torch.testing.assert_close(converged, exact.detach(), rtol=2e-3, atol=0)


def test_the_bound_does_not_depend_on_how_it_is_cut_into_parts(model: SmallModel, images: Tensor) -> None:
    bounds = [importance_weighted_bound(model, Batch(images), 5000, at_once=at_once) for at_once in (4, 1000, 20_000)]
    for bound in bounds:
        torch.testing.assert_close(bound, bounds[0], rtol=0.04, atol=0)
    shares: list[float] = []
    posterior = model.encode(images)
    weights = importance_weights(model, Batch(images), posterior, 7, at_once=3 * len(images), advance=shares.append)
    assert weights.shape == (7, len(images))
    assert shares == pytest.approx([3 / 7, 3 / 7, 1 / 7])


class TestVampPrior:
    """The mixture of the posteriors of learned pseudo-inputs."""

    @pytest.fixture
    def model(self) -> SmallModel:
        torch.manual_seed(1)
        model = SmallModel()
        model.prior = VampPrior((1, 2, 3), components=4)
        model.prior.attach(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(PIXELS), model.head))
        return model.double()

    @pytest.mark.parametrize("training", [True, False])
    def test_is_the_mixture_of_a_batch_of_its_own(self, model: SmallModel, training: bool) -> None:
        z = torch.randn(5, D).double()
        (encoder,) = model.prior._encoder
        _, norm, head = encoder.double().train(training)
        norm.running_mean += 3
        pixels = model.prior.pseudo_inputs.sigmoid().flatten(1)
        centred = pixels - pixels.mean(0)
        components = head(centred / (centred.square().mean(0) + norm.eps).sqrt())
        expected = torch.stack([components.log_prob(row).exp().mean().log() for row in z])
        torch.testing.assert_close(model.prior.distribution().log_prob(z), expected)

    def test_leaves_the_encoder_alone(self, model: SmallModel) -> None:
        (encoder,) = model.prior._encoder
        norm = encoder.double()[1]
        before = copy.deepcopy(norm.state_dict())
        model.prior.distribution()
        SharedBatchNorms().apply(encoder)
        model.prior.distribution()  # without the other processes, of which there are none here
        assert norm.training
        assert norm.track_running_stats
        torch.testing.assert_close(norm.state_dict(), before)
        assert set(model.prior.state_dict()) == {"pseudo_inputs"}

    def test_a_single_pseudo_input_has_no_batch(self, model: SmallModel) -> None:
        with pytest.raises(ValueError, match="components: must be at least 2"):
            VampPrior((1, 2, 3), components=1).attach(model.prior._encoder[0])

    def test_the_rate_is_that_of_the_sample(self, model: SmallModel, images: Tensor) -> None:
        model.prior._encoder[0].double()
        terms, z, _ = seeded(ELBO(), model, images)
        expected = model.encode(images).log_prob(z) - model.prior.distribution().log_prob(z)
        torch.testing.assert_close(terms["rate"], expected)


def test_beta_weighs_the_rate(model: SmallModel, images: Tensor) -> None:
    terms = Beta(3.0)(model, Batch(images))
    torch.testing.assert_close(terms["loss"], terms["distortion"] + 3 * terms["rate"])
    with pytest.raises(ValueError, match="beta: .* got -1"):
        Beta(-1)
