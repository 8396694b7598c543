"""Normalizing flows of autoregressive layers.

The layers, their masked networks and the splines are zuko's, https://zuko.readthedocs.io: well tested, with one network
pass in one direction and as many as dimensions in the other. `Flow` adds what a variational autoencoder asks of them:
the density of its own samples without inversion, and 32 bits under mixed precision.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Transform, constraints

from ..precision import full_precision

_validating = Distribution._validate_args
from zuko.flows import MaskedAutoregressiveTransform  # noqa: E402
from zuko.transforms import ComposedTransform  # noqa: E402

Distribution.set_default_validate_args(_validating)  # zuko turns validation off for all distributions

__all__ = ["Autoregressive", "Flow"]


class Flow(Distribution):
    """The distribution of T(u) for u from a base distribution.

    Args:
        base: batch `(…)`, event `(D,)`.
        transform: T, with zuko's `call_and_ladj`.

    Source: Rezende and Mohamed (2015), equation 15, https://arxiv.org/abs/1505.05770.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, base: Distribution, transform: Any) -> None:
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)
        self.base = base
        self.transform = transform
        self._drawn: tuple[Tensor, Tensor] | None = None

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        u = self.base.rsample(torch.Size(sample_shape))
        with full_precision(u):
            z, log_slope = self.transform.call_and_ladj(u)
        self._drawn = z, self.base.log_prob(u) - log_slope
        return z

    def log_prob(self, z: Tensor) -> Tensor:
        """Returns log q(z) `(…)`: as found when z was drawn, if it is the last sample, otherwise by inversion."""
        if self._drawn and z is self._drawn[0] and (z.requires_grad or not torch.is_grad_enabled()):
            return self._drawn[1]
        with full_precision(z):
            u, log_slope = self.transform.inv.call_and_ladj(z)
        return self.base.log_prob(u) + log_slope


class Autoregressive(nn.Module):
    """Layers y_j = f(x_j; h_j(x_<j, context)), with the dimensions in reverse order in every second layer.

    The network h of each layer is a masked multilayer perceptron (MADE, Germain et al. 2015,
    https://arxiv.org/abs/1502.03509).

    Args:
        dimensions: of x and y.
        context: number of context features; 0 for none.
        layers: number of layers.
        hidden: units of each hidden layer of a network.
        univariate: f, a transform made from the network's outputs, which have as many trailing axes as `shapes` say.
        shapes: of the outputs for each dimension, without the batch.

    Raises:
        ValueError: for fewer than one layer.
    """

    def __init__(
        self,
        dimensions: int,
        context: int,
        layers: int,
        hidden: Sequence[int],
        univariate: Callable[..., Transform],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        if layers < 1:
            raise ValueError(f"transforms: must be at least 1, got {layers}")
        # Without context, a network for a single dimension would have no inputs: it gets a constant one.
        self.constant = not context and dimensions == 1
        order = torch.arange(dimensions, device="cpu")
        with torch.device("cpu"):  # zuko reads values of the masks that it makes
            made = [
                MaskedAutoregressiveTransform(
                    dimensions, context or int(self.constant), order=order.flip(0) if number % 2 else order,
                    univariate=univariate, shapes=shapes, hidden_features=hidden,
                )
                for number in range(layers)
            ]  # fmt: skip
        self.layers = nn.ModuleList(made).to(torch.get_default_device())

    def forward(self, context: Tensor | None = None) -> Transform:
        """Returns the transform for a context `(…, context)`."""
        if self.constant:
            context = next(self.parameters()).new_ones(1)
        return ComposedTransform(*(layer(context) for layer in self.layers))
