"""A prior made from the posterior."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily

from ..latent_spaces import CodeVectors
from ..posteriors import is_deterministic, latent_space_of
from .prior import Prior

__all__ = ["VampPrior"]


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
        """Sets the encoder. It remains the model's: the tuple keeps it out of this module's parameters.

        Raises:
            ValueError: for codes without a density, through which no gradient reaches the pseudo-inputs.
        """
        if is_deterministic(encoder) or latent_space_of(encoder) is CodeVectors:
            raise ValueError(
                "prior: vamp needs a posterior with a density, such as diagonal, to train its pseudo-inputs"
            )
        self._encoder = (encoder,)
        self.latent_space = latent_space_of(encoder)

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
