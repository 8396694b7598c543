"""Objectives: what a training step minimises, as functions of a model and a batch of images.

An objective is called with the model and images `(B, C, H, W)` and returns `Terms`, each `(B,)`: one number
per image, in nats, summed over pixels and over latent dimensions. (A mean over either would weigh the two
terms by the size of the image or of the code, and runs with different latent dimensions would no longer
minimise the same thing.) It receives the whole model, so that bounds with many samples fit as well.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence

from .priors import Prior

__all__ = ["ELBO", "AsPrinted", "Beta", "Model", "Terms"]


class Terms(NamedTuple):
    """Per image, in nats, each of shape `(B,)`.

    Attributes:
        loss: what is minimised.
        distortion: −log p(x|z) for a sample z of the posterior, an estimate of −E_q log p(x|z).
        rate: KL(q(z|x) ‖ p(z)).
    """

    loss: Tensor
    distortion: Tensor
    rate: Tensor


class Model(Protocol):
    """What an objective asks of a model; `vae_lightning.vae.VAE` is one."""

    @property
    def prior(self) -> Prior: ...

    def encode(self, x: Tensor) -> Distribution: ...

    def decode(self, z: Tensor) -> Distribution: ...


class ELBO(nn.Module):
    """The negative evidence lower bound, distortion + rate, with one posterior sample per image.

    Source: Kingma and Welling (2014), equation 10, https://arxiv.org/abs/1312.6114.
    """

    def forward(self, model: Model, x: Tensor) -> Terms:
        posterior = model.encode(x)
        distortion = -model.decode(self.sample(posterior)).log_prob(x)
        rate = kl_divergence(posterior, model.prior.distribution())
        return Terms(self.combine(distortion, rate), distortion, rate)

    def sample(self, posterior: Distribution) -> Tensor:
        """Codes `(B, latent_dim)` drawn by the reparameterisation z = μ + ε·σ with ε ~ N(0, I)."""
        return posterior.rsample()

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        """The loss `(B,)` made of the two terms."""
        return distortion + rate


class Beta(ELBO):
    """distortion + β·rate.

    Args:
        beta: weight of the rate, at least 0; 1 is the ELBO.

    Raises:
        ValueError: for a negative weight.

    Source: Higgins et al. (2017), β-VAE, https://openreview.net/forum?id=Sy2fzU9gl.
    """

    def __init__(self, beta: float = 4.0) -> None:
        super().__init__()
        if not beta >= 0:
            raise ValueError(f"beta: must be a number of at least 0, got {beta}")
        self.beta = beta

    def combine(self, distortion: Tensor, rate: Tensor) -> Tensor:
        return distortion + self.beta * rate


class AsPrinted(ELBO):
    """The ELBO with the sampler as the book prints it, z = μ + ε·(½ log σ²): an ablation, not a bound.

    The standard deviation is exp(½ log σ²); the exponential is missing in print. Where the rate is smallest,
    at log σ² = 0, this sampler adds no noise at all, so codes cost little and the model becomes nearly a plain
    autoencoder.

    Source: Keydana, *Deep Learning and Scientific Computing with R torch*, chapter 16, as printed.
    """

    def sample(self, posterior: Distribution) -> Tensor:
        half_log_variance = posterior.stddev.log()
        return posterior.mean + torch.randn_like(half_log_variance) * half_log_variance
