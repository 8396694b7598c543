"""The loss, its terms and the samplers, in float64 against independent calculations."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal, kl_divergence

from vae_lightning.architectures.posterior import GaussianHead
from vae_lightning.likelihoods import Bernoulli as BernoulliLikelihood
from vae_lightning.objectives import ELBO, AsPrinted, Beta
from vae_lightning.priors import StandardNormal

D, PIXELS = 3, 6


class SmallModel(nn.Module):
    """Linear encoder and decoder of images with 1×2×3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.head = GaussianHead(PIXELS, D)
        self.decoder = nn.Linear(D, PIXELS)
        self.prior = StandardNormal(D)
        self.likelihood = BernoulliLikelihood()

    def encode(self, x: Tensor) -> Distribution:
        return self.head(x.flatten(1))

    def decode(self, z: Tensor) -> Distribution:
        return self.likelihood(self.decoder(z).view(*z.shape[:-1], 1, 2, 3))


@pytest.fixture
def model() -> SmallModel:
    torch.manual_seed(1)
    return SmallModel().double()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def test_rate_is_the_chapters_formula(model: SmallModel, images: Tensor) -> None:
    features = images.flatten(1)
    mean, log_variance = model.head.mean(features), model.head.log_variance(features)
    expected = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)
    torch.testing.assert_close(ELBO()(model, images).rate, expected)


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
    terms = ELBO()(model, images)
    torch.manual_seed(3)
    p = model.decoder(model.encode(images).rsample()).sigmoid().view_as(images)
    expected = -(images * p.log() + (1 - images) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(terms.distortion, expected)
    torch.testing.assert_close(terms.loss, expected + terms.rate)


def test_bernoulli_is_normalised_over_binary_images() -> None:
    logits = torch.randn(1, 2, 3, dtype=torch.float64)
    images = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * PIXELS).view(-1, 1, 2, 3)
    total = BernoulliLikelihood()(logits).log_prob(images).logsumexp(0)
    torch.testing.assert_close(total, torch.zeros_like(total))


def test_floor_of_grey_images_is_their_entropy(images: Tensor) -> None:
    logits = images.logit()
    entropy = Bernoulli(probs=images).entropy().sum((1, 2, 3))
    torch.testing.assert_close(-BernoulliLikelihood()(logits).log_prob(images), entropy)


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

    def __init__(self, model: SmallModel, objective: ELBO) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(5)
        return self.objective(self.model, x).loss.sum()


@pytest.mark.parametrize("objective", [ELBO(), Beta(2.5), AsPrinted()], ids=lambda objective: type(objective).__name__)
def test_gradients_agree_with_finite_differences(objective: ELBO, model: SmallModel, images: Tensor) -> None:
    loss = Loss(model, objective)
    names, values = zip(*loss.named_parameters(), strict=True)

    def of_parameters(*parameters: Tensor) -> Tensor:
        return torch.func.functional_call(loss, dict(zip(names, parameters, strict=True)), (images,))

    assert torch.autograd.gradcheck(of_parameters, values)


def test_beta_weighs_the_rate(model: SmallModel, images: Tensor) -> None:
    terms = Beta(3.0)(model, images)
    torch.testing.assert_close(terms.loss, terms.distortion + 3 * terms.rate)
    with pytest.raises(ValueError, match="beta: .* got -1"):
        Beta(-1)
