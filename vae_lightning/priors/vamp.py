"""A prior made from the posterior."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily
from torch.nn.modules.batchnorm import _BatchNorm

from ..latent_spaces import CodeVectors
from ..posteriors import is_deterministic, latent_space_of
from .prior import Prior

__all__ = ["VampPrior"]


class VampPrior(Prior):
    """VampPrior, the mixture of posteriors of learned pseudo-inputs u_k: p(z) = 1/K Σ_k q(z|u_k).

    Batch norm normalises the pseudo-inputs by their own statistics, in training and evaluation alike. Mixed with
    images, they would distort the images' statistics; running statistics pass no gradient and lag behind the weights.

    Args:
        image_shape: `(C, H, W)`.
        components: K, at least 1; at least 2 for an encoder with batch norm.

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
        """Sets the encoder. It remains the model's: the tuple keeps it out of this module's parameters.

        Raises:
            ValueError: for codes without continuous noise, through which no gradient reaches the pseudo-inputs; or for
                batch norm of a single pseudo-input.
        """
        if is_deterministic(encoder) or latent_space_of(encoder) is CodeVectors:
            raise ValueError(
                "prior: vamp needs a posterior with continuous noise, such as diagonal, to train its pseudo-inputs"
            )
        if len(self.pseudo_inputs) == 1 and _batch_norms(encoder):
            raise ValueError("components: must be at least 2 for an encoder with batch norm, got 1")
        self._encoder = (encoder,)
        self.latent_space = latent_space_of(encoder)

    def distribution(self) -> MixtureSameFamily:
        (encoder,) = self._encoder
        with _own_statistics(encoder):
            components = encoder(self.pseudo_inputs.sigmoid())
        weights = Categorical(logits=self.uniform, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)


@contextmanager
def _own_statistics(module: nn.Module) -> Iterator[None]:
    # A layer that is not training and has no running statistics takes those of its input. It asks no other process.
    norms = _batch_norms(module)
    before = [(layer.training, layer.running_mean, layer.running_var) for layer in norms]
    for layer in norms:
        layer.training, layer.running_mean, layer.running_var = False, None, None
    try:
        yield
    finally:
        for layer, state in zip(norms, before, strict=True):
            layer.training, layer.running_mean, layer.running_var = state


def _batch_norms(module: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]
