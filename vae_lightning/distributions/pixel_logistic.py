"""Logistic variables rounded to the levels of a pixel, and mixtures of them for pixels of several channels."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn import functional

__all__ = ["PixelLogistic", "PixelLogisticMixture"]


class PixelLogistic(Distribution):
    """A logistic variable rounded to multiples of `width` from 0 to `highest`; the end levels take the tails.

    Args:
        location: of any shape.
        scale: broadcastable with it.
        width: distance between adjacent levels.
        highest: the highest level.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.real

    def __init__(self, location: Tensor, scale: Tensor, width: float, highest: float) -> None:
        super().__init__(location.shape, validate_args=False)
        self.location, self.scale, self.width, self.highest = location, scale, width, highest

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "PixelLogistic":
        return PixelLogistic(self.location.expand(batch_shape), self.scale, self.width, self.highest)

    @property
    def mean(self) -> Tensor:
        """Mean of the unrounded variable, clamped to the range; rounding moves it by less than half a level."""
        upper, lower = (self.location - end for end in (0.0, self.highest))
        return self.scale * (functional.softplus(upper / self.scale) - functional.softplus(lower / self.scale))

    def log_prob(self, value: Tensor) -> Tensor:
        above = (value + self.width / 2 - self.location) / self.scale
        below = (value - self.width / 2 - self.location) / self.scale
        # σ(a) − σ(b) = σ(a) σ(−b) (1 − e^(b − a)), without cancellation
        within = (-torch.expm1(-self.width / self.scale)).log()
        at_least, at_most = functional.logsigmoid(-below), functional.logsigmoid(above)
        lowest, highest = value < self.width / 2, value > self.highest - self.width / 2
        return torch.where(lowest, at_most, torch.where(highest, at_least, at_most + at_least + within))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.location.dtype, device=self.location.device)
        levels = ((self.location + self.scale * torch.logit(u, eps=1e-7)) / self.width).round()
        return levels.clamp(0, round(self.highest / self.width)) * self.width


class PixelLogisticMixture(Distribution):
    """A mixture of `PixelLogistic` for each pixel, each channel depending on the earlier ones; event `(C, H, W)`.

    Args:
        logits: of the components, `(…, K, H, W)`.
        locations: `(…, K, C, H, W)`; that of channel c is for earlier channels of value 0.5.
        scales: as the locations.
        coefficients: `(…, K, C(C − 1)/2, H, W)`, by which the location of channel c moves with the value of channel
            b < c: those of channel 1, of channel 2, ….
        width: distance between adjacent levels.
        highest: the highest level.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.independent(constraints.real, 3)

    def __init__(
        self, logits: Tensor, locations: Tensor, scales: Tensor, coefficients: Tensor, width: float, highest: float
    ) -> None:
        super().__init__(logits.shape[:-3], locations.shape[-3:], validate_args=False)
        self.logits, self.locations, self.scales, self.coefficients = logits, locations, scales, coefficients
        self.width, self.highest = width, highest

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "PixelLogisticMixture":
        parameters = (self.logits, self.locations, self.scales, self.coefficients)
        logits, locations, scales, coefficients = (
            parameter.expand(*batch_shape, *parameter.shape[len(self.batch_shape) :]) for parameter in parameters
        )
        return PixelLogisticMixture(logits, locations, scales, coefficients, self.width, self.highest)

    @property
    def mean(self) -> Tensor:
        """Mean of the components' means: see `PixelLogistic.mean`; of later channels, at the means of earlier ones."""
        means: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            means.append(self._components(channel, means).mean)
        weights = self.logits.softmax(-3)
        return torch.stack([(weights * mean).sum(-3) for mean in means], -3)

    def log_prob(self, value: Tensor) -> Tensor:
        channels = value.unsqueeze(-4).unbind(-3)  # (…, 1, H, W) each, against the components' (…, K, H, W)
        of_component = self.logits.log_softmax(-3)
        for channel, values in enumerate(channels):
            of_component = of_component + self._components(channel, channels[:channel]).log_prob(values)
        return of_component.logsumexp(-3).sum((-2, -1))

    @torch.no_grad()
    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        if sample_shape:
            return self.expand(torch.Size(sample_shape) + self.batch_shape).sample()
        drawn: list[Tensor] = []
        for channel in range(self.event_shape[0]):
            drawn.append(self._components(channel, drawn).sample())
        # The largest of logits with Gumbel noise is a draw from their distribution.
        noise = -(-torch.rand_like(self.logits).clamp_min(1e-20).log()).log()
        chosen = (self.logits + noise).argmax(-3, keepdim=True)
        return torch.cat([values.gather(-3, chosen) for values in drawn], -3)

    def _components(self, channel: int, earlier: Sequence[Tensor]) -> PixelLogistic:
        """A channel's distribution in each component, `(…, K, H, W)`, given the values of the earlier channels."""
        location = self.locations[..., channel, :, :]
        first = channel * (channel - 1) // 2
        for number, values in enumerate(earlier, first):
            location = location + self.coefficients[..., number, :, :] * (values - 0.5)
        return PixelLogistic(location, self.scales[..., channel, :, :], self.width, self.highest)
