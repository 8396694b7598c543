"""A normalizing flow as a prior."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.distributions import AffineTransform, Independent, Normal
from zuko.transforms import ComposedTransform, DependentTransform, MonotonicAffineTransform, MonotonicRQSTransform

from ..distributions import Autoregressive, Flow
from .standardised import Standardised

__all__ = ["FlowPrior"]


class FlowPrior(Standardised):
    """p(z), the density of a flow from z to N(0, I): one network pass for a density, latent_dim of them for a sample.

    The layers are zuko's; see `vae_lightning.distributions.Autoregressive`. Splines transform values between −5 and 5
    and leave others as they are.

    Args:
        latent_dim: dimension of z.
        kind: of the layers: `nsf`, rational-quadratic splines, or `maf`, scales and shifts.
        transforms: number of layers, at least 1.
        hidden: units of each hidden layer of a layer's network.
        bins: of a spline.

    Raises:
        ValueError: for an option out of range.

    Source: Papamakarios et al. (2017), https://arxiv.org/abs/1705.07057; Durkan et al. (2019),
    https://arxiv.org/abs/1906.04032.
    """

    zeros: Tensor
    ones: Tensor

    def __init__(
        self,
        latent_dim: int,
        kind: str = "nsf",
        transforms: int = 3,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
    ) -> None:
        super().__init__(latent_dim)
        if kind not in ("nsf", "maf"):
            raise ValueError(f"kind: must be nsf or maf, got {kind}")
        univariate = MonotonicRQSTransform if kind == "nsf" else MonotonicAffineTransform
        shapes = [(bins,), (bins,), (bins - 1,)] if kind == "nsf" else [(), ()]
        self.layers = Autoregressive(latent_dim, 0, transforms, hidden, univariate, shapes)
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def distribution(self) -> Flow:
        base = Independent(Normal(self.zeros, self.ones, validate_args=False), 1, validate_args=False)
        units = DependentTransform(AffineTransform(-self.location / self.scale, 1 / self.scale), 1)
        return Flow(base, ComposedTransform(units, self.layers()).inv)
