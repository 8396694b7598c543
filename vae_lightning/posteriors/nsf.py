"""Neural spline flows as posteriors."""

from collections.abc import Sequence

from zuko.transforms import MonotonicRQSTransform

from .flow import FlowHead

__all__ = ["NeuralSplineHead"]


class NeuralSplineHead(FlowHead):
    """A Gaussian sample whose dimensions go, in each layer, through rational-quadratic splines given those before.

    The splines, zuko's, transform values between −5 and 5 and leave others as they are.

    Args:
        features: number of input features.
        latent_dim: dimension of z.
        transforms: number of layers, at least 1.
        hidden: units of each hidden layer of a layer's network.
        context: number of context features that are made from the features.
        bins: of a spline, at least 2.

    Raises:
        ValueError: for fewer than two bins.

    Source: Durkan et al. (2019), section 3, https://arxiv.org/abs/1906.04032.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        transforms: int = 2,
        hidden: Sequence[int] = (64, 64),
        context: int = 64,
        bins: int = 8,
    ) -> None:
        if bins < 2:
            raise ValueError(f"bins: must be at least 2, got {bins}")
        shapes = [(bins,), (bins,), (bins - 1,)]
        super().__init__(features, latent_dim, transforms, hidden, context, MonotonicRQSTransform, shapes)
