"""Pixels of so many levels, whose likelihoods are probabilities."""

import math
from collections.abc import Mapping

from torch import Tensor
from torch.distributions import Independent

from ..distributions import PixelLogistic, PixelLogisticMixture
from .likelihood import Likelihood
from .scale import ScaleParameter

__all__ = ["DiscretizedLogistic", "LogisticMixture"]


class _GreyLevels(Likelihood):
    """A likelihood of pixel values k/`pixel_scale`, k = 0 … `levels` − 1; it has bits per dimension."""

    def __init__(self, levels: int, pixel_scale: float) -> None:
        super().__init__()
        self.width = 1 / pixel_scale
        self.highest = (levels - 1) / pixel_scale

    def metrics(self, x: Tensor, distortion: Tensor, rate: Tensor) -> Mapping[str, Tensor]:
        return {"bits_per_dim": (distortion + rate) / (x.shape[1:].numel() * math.log(2))}


class DiscretizedLogistic(_GreyLevels):
    """Independent grey levels: rounded logistic variables around the raw parameters; the end levels take the tails.

    Args:
        levels: number of grey levels; pixel values are k/`pixel_scale` for k = 0 … levels − 1.
        pixel_scale: divisor of the grey levels.
        scale: initial scale of the logistic, greater than 0, in units of pixel values; learned, shared by all pixels.

    Source: Salimans et al. (2017), equation 2, https://arxiv.org/abs/1701.05517; Kingma et al. (2016), appendix.
    """

    def __init__(self, levels: int = 256, pixel_scale: float = 255.0, scale: float = 0.1) -> None:
        super().__init__(levels, pixel_scale)
        self.log_scale = ScaleParameter(scale)

    def forward(self, raw: Tensor) -> Independent:
        return Independent(PixelLogistic(raw, self.log_scale().exp(), self.width, self.highest), 3, validate_args=False)


class LogisticMixture(_GreyLevels):
    """Mixtures of rounded logistic variables, one for each pixel, whose channels depend on each other.

    A component of a pixel's mixture has, for each channel, a location and a scale. The locations of later channels
    move with the values of the earlier ones: green with red, blue with red and green, each by a coefficient between
    −1 and 1. With C channels and K components, the raw parameters of a pixel are K logits, and for each component C
    locations, C log-scales and C(C − 1)/2 coefficients, all for pixel values that are stretched to [−1, 1].

    Args:
        components: K, at least 1.
        levels: number of levels of each channel; pixel values are k/`pixel_scale` for k = 0 … levels − 1.
        pixel_scale: divisor of the levels.

    Raises:
        ValueError: for raw parameters of no whole number of channels.

    Source: Salimans et al. (2017), equations 1 to 3, https://arxiv.org/abs/1701.05517.
    """

    def __init__(self, components: int = 10, levels: int = 256, pixel_scale: float = 255.0) -> None:
        super().__init__(levels, pixel_scale)
        if components < 1:
            raise ValueError(f"components: must be a whole number of at least 1, got {components}")
        self.components = components

    def raw_channels(self, channels: int) -> int:
        return self.components * (1 + sum(self._per_component(channels)))

    def forward(self, raw: Tensor) -> PixelLogisticMixture:
        given = raw.shape[-3]
        channels = next((count for count in range(1, given + 1) if self.raw_channels(count) == given), None)
        if channels is None:
            raise ValueError(
                f"the decoder returns {given} channels; for {self.components} components of grey images the likelihood "
                f"needs {self.raw_channels(1)}, of colour images {self.raw_channels(3)}"
            )
        parts = self._per_component(channels)
        logits, others = raw.split([self.components, self.components * sum(parts)], -3)
        locations, log_scales, coefficients = others.unflatten(-3, (self.components, -1)).split(parts, -3)
        # The source bounds the scales from below, to a ninth of a level; the upper bound keeps them finite.
        scales = log_scales.clamp(-7, 7).exp() / 2
        return PixelLogisticMixture(logits, 0.5 + locations / 2, scales, coefficients.tanh(), self.width, self.highest)

    @staticmethod
    def _per_component(channels: int) -> list[int]:
        """Numbers of locations, scales and coefficients."""
        return [channels, channels, channels * (channels - 1) // 2]
