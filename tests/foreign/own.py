"""Somebody else's package: a posterior, prior, objective and architecture, known to the project by YAML only."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import (
    Distribution,
    Independent,
    MultivariateNormal,
    Normal,
    Transform,
    TransformedDistribution,
    constraints,
)
from torch.nn import functional

from vae_lightning.data.batch import Batch
from vae_lightning.objectives import ELBO, Model, Player, Terms
from vae_lightning.priors import Prior

CLASSES = 10


def class_codes(labels: Tensor | None, shape: Sequence[int], like: Tensor) -> Tensor:
    """One-hot labels `(*shape, 10)`; even shares where none are known."""
    if labels is None:
        return like.new_full((*shape, CLASSES), 1 / CLASSES)
    return functional.one_hot(labels, CLASSES).to(like).expand(*shape, CLASSES)


class Encoder(nn.Module):
    """q(z|x, y): a normal distribution with full covariance."""

    conditional = True

    def __init__(self, image_shape: Sequence[int], latent_dim: int, units: int = 32) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.hidden = nn.Sequential(nn.Linear(prod(image_shape) + CLASSES, units), nn.Tanh(), nn.Dropout(0.1))
        self.mean = nn.Linear(units, latent_dim)
        self.factor = nn.Linear(units, latent_dim**2)

    def forward(self, x: Tensor, labels: Tensor | None) -> MultivariateNormal:
        hidden = self.hidden(torch.cat([x.flatten(1), class_codes(labels, x.shape[:1], x)], 1))
        mean, factor = self.mean(hidden), self.factor(hidden).unflatten(1, (self.latent_dim, self.latent_dim))
        precise = torch.promote_types(mean.dtype, torch.float32)
        mean, factor = mean.to(precise), factor.to(precise)
        diagonal = functional.softplus(factor.diagonal(dim1=1, dim2=2)) + 1e-3
        scale_tril = factor.tril(-1) + torch.diag_embed(diagonal)
        return MultivariateNormal(mean, scale_tril=scale_tril, validate_args=False)


class Decoder(nn.Module):
    """p(x|z, y)."""

    conditional = True

    def __init__(self, image_shape: Sequence[int], latent_dim: int, units: int = 32) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.layers = nn.Sequential(
            nn.Linear(latent_dim + CLASSES, units), nn.Tanh(), nn.Linear(units, prod(image_shape))
        )

    def forward(self, z: Tensor, labels: Tensor | None) -> Tensor:
        codes = torch.cat([z, class_codes(labels, z.shape[:-1], z)], -1)
        return self.layers(codes).unflatten(-1, self.image_shape)


class Coupling(Transform):
    """One half of a code shifts and scales the other."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, layer: nn.Module, half: int) -> None:
        super().__init__()
        self.layer, self.half = layer, half

    def _parameters(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        shift, log_scale = self.layer(kept).chunk(2, -1)
        return shift, log_scale.tanh()

    def _call(self, x: Tensor) -> Tensor:
        kept, moved = x[..., : self.half], x[..., self.half :]
        shift, log_scale = self._parameters(kept)
        return torch.cat([kept, moved * log_scale.exp() + shift], -1).flip(-1)

    def _inverse(self, y: Tensor) -> Tensor:
        kept, moved = y.flip(-1)[..., : self.half], y.flip(-1)[..., self.half :]
        shift, log_scale = self._parameters(kept)
        return torch.cat([kept, (moved - shift) * (-log_scale).exp()], -1)

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return self._parameters(x[..., : self.half])[1].sum(-1)


class FlowPrior(Prior):
    """p(z): a standard normal through two coupling layers."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim, self.half = latent_dim, latent_dim // 2
        self.layers = nn.ModuleList(nn.Linear(self.half, 2 * (latent_dim - self.half)) for _ in range(2))

    def distribution(self) -> Distribution:
        zeros = self.layers[0].weight.new_zeros(self.latent_dim)
        base = Independent(Normal(zeros, zeros + 1, validate_args=False), 1, validate_args=False)
        couplings = [Coupling(layer, self.half) for layer in self.layers]
        return TransformedDistribution(base, couplings, validate_args=False)


class Adversarial(ELBO):
    """The ELBO, and codes that a discriminator cannot tell from the prior's."""

    def __init__(self, latent_dim: int, lr: float = 1e-3) -> None:
        super().__init__()
        self.discriminator = nn.Sequential(nn.Linear(latent_dim, 16), nn.ReLU(), nn.Linear(16, 1))
        self.lr = lr

    def players(self) -> Mapping[str, Player]:
        return {"discriminator_loss": Player(self.discriminator, partial(torch.optim.RMSprop, lr=self.lr))}

    def forward(self, model: Model, batch: Batch) -> Terms:
        terms = super().forward(model, batch)
        codes = model.encode(*batch).rsample()
        drawn = model.prior_distribution(batch.labels).sample((len(codes),))
        fooled = functional.softplus(-self.discriminator(codes)).squeeze(1)
        told = functional.softplus(self.discriminator(codes.detach())) + functional.softplus(-self.discriminator(drawn))
        return {**terms, "loss": terms["loss"] + fooled, "discriminator_loss": told.squeeze(1)}
