"""Annealed importance sampling on a linear-Gaussian model, whose log p(x) is known."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, MultivariateNormal, Normal

from vae_lightning.data.batch import Batch
from vae_lightning.metrics import annealing
from vae_lightning.metrics.annealing import annealed_bound, annealed_sandwich, simulated, temperatures

SHAPE = (1, 3, 2)


class LinearGaussian(nn.Module):
    """x = W z + b + σ ε, with a prior that is not standard."""

    def __init__(self, latent_dim: int = 2, sigma: float = 0.5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(math.prod(SHAPE), latent_dim, generator=generator))
        self.bias = nn.Parameter(torch.randn(math.prod(SHAPE), generator=generator))
        self.sigma = sigma
        self.mean, self.scale = torch.tensor([1.0, -0.5]), torch.tensor([0.7, 1.5])

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal((z @ self.weight.T + self.bias).unflatten(-1, SHAPE), self.sigma), 3)

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return Independent(Normal(self.mean, self.scale), 1)

    def log_likelihood(self, images: Tensor) -> Tensor:
        covariance = self.weight * self.scale.square() @ self.weight.T + self.sigma**2 * torch.eye(math.prod(SHAPE))
        return MultivariateNormal(self.weight @ self.mean + self.bias, covariance).log_prob(images.flatten(1)).detach()


@pytest.fixture
def model() -> LinearGaussian:
    torch.manual_seed(0)
    return LinearGaussian()


def test_weights_are_unbiased_however_few_the_steps(model: LinearGaussian) -> None:
    batch, _ = simulated(model, 3)
    batch = Batch(batch.images.detach() + 0.3)
    found = annealed_bound(model, batch, chains=20_000, steps=4)
    torch.testing.assert_close(found, model.log_likelihood(batch.images).double(), atol=0.1, rtol=0)


def test_with_one_step_it_is_importance_sampling_from_the_prior(
    model: LinearGaussian, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = Batch(simulated(model, 3)[0].images.detach())
    codes = model.prior_distribution().sample((7, 3))
    monkeypatch.setattr(annealing, "_start", lambda _, __, chains: codes[:chains])
    expected = model.decode(codes).log_prob(batch.images).logsumexp(0) - math.log(7)
    torch.testing.assert_close(annealed_bound(model, batch, 7, 1), expected.detach().double())


def test_the_truth_lies_between_and_is_reached(model: LinearGaussian) -> None:
    batch, codes = simulated(model, 300)
    exact = model.log_likelihood(batch.images)
    gaps = []
    for steps in (5, 20, 80):
        lower, upper = annealed_sandwich(model, batch, codes, 4, steps)
        errors = [(part - exact).std() / len(exact) ** 0.5 for part in (lower, upper)]
        assert (lower - exact).mean() < 2 * errors[0]
        assert (upper - exact).mean() > -2 * errors[1]
        gaps.append((upper - lower).mean().item())
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]
    assert abs((lower - exact).mean()) < 0.15
    assert abs((upper - exact).mean()) < 0.3


def test_a_transition_keeps_its_density(model: LinearGaussian) -> None:
    """Chains that start where they should, at p(z|x), stay there."""
    images = simulated(model, 1)[0].images.detach()
    precision = model.weight.T @ model.weight / model.sigma**2 + torch.diag(model.scale**-2)
    covariance = precision.inverse().detach()
    shift = (images.flatten(1) - model.bias) @ model.weight / model.sigma**2 + model.mean / model.scale**2
    mean = (shift @ covariance).detach()
    start = MultivariateNormal(mean, covariance).sample((40_000,))
    with torch.enable_grad():
        chains = annealing._Chains(annealing._target(model, Batch(images)), start)
        # Steps so large that many are refused.
        shares = [chains.move(1.0, torch.tensor([0.35])).mean() for _ in range(3)]
    assert 0.1 < min(shares) < 0.9
    codes = chains.codes[:, 0]
    torch.testing.assert_close(codes.mean(0), mean[0], atol=0.01, rtol=0)
    torch.testing.assert_close(codes.T.cov(), covariance, atol=0.005, rtol=0.05)
    assert not torch.equal(chains.codes, start)


def test_temperatures_go_from_one_end_to_the_other() -> None:
    found = temperatures(50)
    assert found[0] == 0
    assert found[-1] == 1
    assert (found.diff() > 0).all()


def test_where_a_trainer_tests(model: LinearGaussian) -> None:
    shares: list[float] = []
    with torch.inference_mode():
        batch, codes = simulated(model, 2)
        found = annealed_bound(model, batch, 2, 3, shares.append)
        annealed_sandwich(model, batch, codes, 2, 3, shares.append)
    assert found.isfinite().all()
    assert sum(shares) == pytest.approx(2)
