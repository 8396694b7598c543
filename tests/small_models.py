"""Models whose objectives can be calculated otherwise, in float64, and images of 1×2×3 pixels for them."""

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, MultivariateNormal

from vae_lightning.data.batch import Batch
from vae_lightning.likelihoods import Bernoulli, Gaussian
from vae_lightning.objectives import Objective, Terms
from vae_lightning.posteriors import GaussianHead
from vae_lightning.priors import Prior, StandardNormal

__all__ = ["PIXELS", "D", "LinearGaussian", "SmallModel", "seeded", "small_images", "small_model"]

D, PIXELS = 3, 6


class SmallModel(nn.Module):
    """Linear encoder and decoder of images with 1×2×3 pixels."""

    prior: Prior

    def __init__(self) -> None:
        super().__init__()
        self.head = GaussianHead(PIXELS, D)
        self.decoder = nn.Linear(D, PIXELS)
        self.prior = StandardNormal(D)
        self.likelihood = Bernoulli()

    @property
    def encoder(self) -> nn.Module:
        return self.head

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        return self.head(x.flatten(1))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z).view(*z.shape[:-1], 1, 2, 3))

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return self.prior.distribution()


def small_model() -> SmallModel:
    torch.manual_seed(1)
    return SmallModel().double()


def small_images(count: int = 4) -> Tensor:
    return torch.rand(count, 1, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def seeded(objective: Objective, model: nn.Module, images: Tensor) -> tuple[Terms, Tensor, Tensor]:
    """The objective's terms, and the codes `(B, D)` and the posterior means that belong to them."""
    torch.manual_seed(3)
    terms = objective(model, Batch(images))
    torch.manual_seed(3)
    posterior = model.encode(images)
    return terms, posterior.rsample(), posterior.mean


class LinearGaussian(nn.Module):
    """Probabilistic principal components: x = W z + b + noise, whose posterior and likelihood are known."""

    def __init__(self, exact: bool) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.weight = nn.Parameter(torch.randn(PIXELS, D).double())
        self.offset = nn.Parameter(torch.randn(PIXELS).double())
        self.likelihood = Gaussian(scale=0.6).double()
        self.prior = StandardNormal(D).double()
        self.shift = 0.0 if exact else 0.4

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return self.likelihood((z @ self.weight.T + self.offset).view(*z.shape[:-1], 1, 2, 3))

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return self.prior.distribution()

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        precision = torch.eye(D).double() + self.weight.T @ self.weight / 0.36
        mean = torch.linalg.solve(precision, self.weight.T @ (x.flatten(1) - self.offset).T / 0.36).T
        return MultivariateNormal(mean + self.shift, precision_matrix=precision)

    def log_likelihood(self, x: Tensor) -> Tensor:
        covariance = self.weight @ self.weight.T + 0.36 * torch.eye(PIXELS).double()
        return MultivariateNormal(self.offset, covariance).log_prob(x.flatten(1))
