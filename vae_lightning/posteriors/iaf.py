"""Inverse autoregressive flows."""

from collections.abc import Sequence

from torch import Tensor
from torch.distributions import AffineTransform

from .flow import FlowHead

__all__ = ["InverseAutoregressiveHead"]

OPEN = 2.0  # logit of the gates at first, so that layers begin close to the identity


class InverseAutoregressiveHead(FlowHead):
    """A Gaussian sample through layers σ·z + (1 − σ)·m, where networks make σ and m of the dimensions before.

    Args:
        features: number of input features.
        latent_dim: dimension of z.
        transforms: number of layers, at least 1.
        hidden: units of each hidden layer of a layer's network.
        context: number of context features that are made from the features.

    Source: Kingma et al. (2016), equations 10 to 14 and algorithm 1, https://arxiv.org/abs/1606.04934.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context: int = 64,
    ) -> None:
        super().__init__(features, latent_dim, transforms, hidden, context, _gated, [(), ()])


def _gated(mean: Tensor, logit: Tensor) -> AffineTransform:
    gate = (logit + OPEN).sigmoid()
    return AffineTransform((1 - gate) * mean, gate)
