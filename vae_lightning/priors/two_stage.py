"""A second variational autoencoder, of the codes, as a prior."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, constraints, kl_divergence

from ..posteriors import GaussianHead
from .standard import StandardNormal
from .standardised import Standardised
from .temperature import tempered

__all__ = ["SecondStage", "TwoStage"]


class TwoStage(Standardised):
    """p(z) = ∫ N(z; f(u), γ² I) N(u; 0, I) du with a decoder f, a learned γ, and an encoder of its own.

    As large as z, u can fill the space in which the codes lie; the two stages are trained one after the other.

    Args:
        latent_dim: dimension of z and u.
        hidden: units of each hidden layer of encoder and decoder; at least one layer.

    Source: Dai and Wipf (2019), section 4, https://arxiv.org/abs/1903.05789.
    """

    def __init__(self, latent_dim: int, hidden: Sequence[int] = (256, 256)) -> None:
        super().__init__(latent_dim)
        self.trunk = _layers([latent_dim, *hidden])
        self.head = GaussianHead(hidden[-1], latent_dim)
        self.decoder = nn.Sequential(_layers([latent_dim, *reversed(hidden)]), nn.Linear(hidden[0], latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.standard = StandardNormal(latent_dim)

    def encode(self, z: Tensor) -> Independent:
        """Returns q(u|z) of codes `(…, latent_dim)`."""
        return self.head(self.trunk((z - self.location) / self.scale))

    def decode(self, u: Tensor) -> Independent:
        """Returns p(z|u), event `(latent_dim,)`."""
        mean = self.location + self.scale * self.decoder(u)
        return Independent(Normal(mean, self.scale * self.log_scale.exp(), validate_args=False), 1, validate_args=False)

    def distribution(self) -> "SecondStage":
        return SecondStage(self)


class SecondStage(Distribution):
    """p(z) of a `TwoStage`.

    Args:
        stage: its networks.
        temperature: factor of the noise of u, and of that of z given u, in samples.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, stage: TwoStage, temperature: float = 1.0) -> None:
        self.stage = stage
        self.temperature = temperature
        self.latent = stage.standard.distribution()
        super().__init__(torch.Size(), self.latent.event_shape, validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with torch.no_grad():
            u = tempered(self.latent, self.temperature).sample(torch.Size(sample_shape))
            return tempered(self.stage.decode(u), self.temperature).sample()

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns the second model's bound of log p(z), `(…)`, with one sample of u."""
        posterior = self.stage.encode(z)
        return self.stage.decode(posterior.rsample()).log_prob(z) - kl_divergence(posterior, self.latent)


@tempered.register
def _(prior: SecondStage, temperature: float) -> SecondStage:
    return SecondStage(prior.stage, temperature * prior.temperature)


def _layers(sizes: Sequence[int]) -> nn.Sequential:
    layers = nn.Sequential()
    for before, after in pairwise(sizes):
        layers += nn.Sequential(nn.Linear(before, after), nn.ReLU())
    return layers
