"""Priors p(z): modules that return a distribution over codes. `Prior` is their contract."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal
from torch.nn.functional import embedding

from .latent_spaces import Euclidean, LatentSpace

__all__ = ["ClassConditional", "Prior", "StandardNormal", "VampPrior"]


class Prior(nn.Module):
    """Base class of priors, which may be fixed, learned, a flow, or share weights with the model.

    Attributes:
        conditional: whether `distribution` takes labels.
        needs_all_labels: whether none of them may be hidden, which is −1.
        latent_space: class of the latent space, called with the latent dimension.
    """

    conditional = False
    needs_all_labels = False
    latent_space: Callable[[int], LatentSpace] = Euclidean

    def distribution(self) -> Distribution:
        """Returns p(z): batch `()`, event `(latent_dim,)`, with `sample` and `log_prob`.

        A conditional prior returns p(z|y) with batch `(B,)` for labels `(B,)`, and p(z) for None.
        """
        raise NotImplementedError

    def attach(self, encoder: nn.Module) -> None:
        """Called once with the model's encoder, for priors built from the posterior."""


class StandardNormal(Prior):
    """N(0, I), without parameters.

    Args:
        latent_dim: dimension of z.
    """

    zeros: Tensor
    ones: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def distribution(self) -> Independent:
        return Independent(Normal(self.zeros, self.ones, validate_args=False), 1, validate_args=False)


class VampPrior(Prior):
    """VampPrior, the mixture of posteriors of learned pseudo-inputs u_k: p(z) = 1/K Σ_k q(z|u_k).

    Pseudo-inputs are encoded with batch norm's running statistics, even in training: they are not images and must not
    enter the statistics used to evaluate images.

    Args:
        image_shape: `(C, H, W)`.
        components: K, at least 1.

    Source: Tomczak and Welling (2018), equation 9, https://arxiv.org/abs/1705.07120.
    """

    uniform: Tensor

    def __init__(self, image_shape: Sequence[int], components: int = 100) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components: must be at least 1, got {components}")
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *image_shape) - 1)
        self.register_buffer("uniform", torch.zeros(components), persistent=False)
        self._encoder: tuple[nn.Module, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the encoder. It remains the model's: the tuple keeps it out of this module's parameters."""
        self._encoder = (encoder,)

    def distribution(self) -> MixtureSameFamily:
        (encoder,) = self._encoder
        with _running_statistics(encoder):
            components = encoder(self.pseudo_inputs.sigmoid())
        weights = Categorical(logits=self.uniform, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)


@contextmanager
def _running_statistics(module: nn.Module) -> Iterator[None]:
    norms = [
        layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
    ]
    for layer in norms:
        layer.eval()
    try:
        yield
    finally:
        for layer in norms:
            layer.train()


class ClassConditional(Prior):
    """A learned normal distribution for each class, p(z|y) = N(μ_y, diag σ_y²); p(z) is their even mixture.

    All start as N(0, I).

    Args:
        latent_dim: dimension of z.
        classes: number of classes, at least 1; labels are numbers from 0.

    Source: the prior of each mixture component in Jiang et al. (2017), equations 2 and 3,
        https://arxiv.org/abs/1611.05148, with y observed.
    """

    conditional = True
    needs_all_labels = True

    def __init__(self, latent_dim: int, classes: int = 10) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes: must be a whole number of at least 1, got {classes}")
        self.classes = classes
        self.means = nn.Parameter(torch.zeros(classes, latent_dim))
        self.log_scales = nn.Parameter(torch.zeros(classes, latent_dim))

    def distribution(self, labels: Tensor | None = None) -> Independent | MixtureSameFamily:
        """Returns p(z|y), batch `(B,)`, for labels `(B,)`, none of which may be unknown; p(z), batch `()`, for None."""
        if labels is not None:
            return _normal(embedding(labels, self.means), embedding(labels, self.log_scales))
        weights = Categorical(logits=self.means.new_zeros(self.classes), validate_args=False)
        return MixtureSameFamily(weights, _normal(self.means, self.log_scales), validate_args=False)


def _normal(means: Tensor, log_scales: Tensor) -> Independent:
    return Independent(Normal(means, log_scales.exp(), validate_args=False), 1, validate_args=False)
