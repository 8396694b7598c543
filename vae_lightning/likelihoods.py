"""Likelihoods p(x|z): from a decoder's raw output to a distribution over images.

A likelihood is a module that maps raw parameters to a `torch.distributions` object with batch shape `(…)` and the
image `(C, H, W)` as its event. Its `mean` is the image that is shown. Any parameters of the likelihood itself, such as
a learned scale, belong to it and not to the decoder. `Likelihood` is the contract.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Bernoulli as PixelBernoulli
from torch.distributions import Distribution, Independent, Normal, constraints
from torch.nn import functional

from .engine.shards import batch_means

__all__ = [
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "LogisticMixture",
    "OptimalGaussian",
    "PixelLogistic",
    "PixelLogisticMixture",
    "TruncatedExponential",
]

Shape = torch.Size | list[int] | tuple[int, ...]


class Likelihood(nn.Module):
    """Maps raw parameters to p(x|z).

    Subclasses override `forward`; `raw_channels` if a pixel has more parameters than channels; and `metrics` if they
    have any to report.
    """

    def forward(self, raw: Tensor) -> Distribution:
        """Returns p(x|z): batch `(…)`, event `(C, H, W)`, with the image to show as its `mean`.

        Args:
            raw: output of the decoder, `(…, raw_channels(C), H, W)`, with at least 32 bits.
        """
        raise NotImplementedError

    def raw_channels(self, channels: int) -> int:
        """Returns the number of raw parameters per pixel of images with so many channels; by default, one for each."""
        return channels

    def metrics(self, x: Tensor, distortion: Tensor, rate: Tensor) -> Mapping[str, Tensor]:
        """Returns additional evaluation metrics by name, each `(B,)`.

        Args:
            x: images `(B, C, H, W)`.
            distortion: of each image, in nats.
            rate: of each image, in nats.
        """
        return {}


class Bernoulli(Likelihood):
    """Independent Bernoulli pixels; the raw parameters are logits.

    On binary images, `log_prob` is a log-likelihood. On grey images, as in the chapter, it is the negative binary
    cross entropy: a loss bounded below by the entropy of the pixels, but not a likelihood.
    """

    def forward(self, raw: Tensor) -> Independent:
        return Independent(PixelBernoulli(logits=raw, validate_args=False), 3, validate_args=False)

    def metrics(self, x: Tensor, distortion: Tensor, rate: Tensor) -> Mapping[str, Tensor]:
        return {"distortion_above_floor": distortion - self.floor(x)}

    def floor(self, x: Tensor) -> Tensor:
        """Returns the lowest distortion of images `(B, C, H, W)`, the entropy of their pixels, `(B,)`; 0 if binary."""
        return -(torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).flatten(1).sum(1)


class ContinuousBernoulli(Likelihood):
    """Independent pixels with density proportional to λ^x (1 − λ)^(1 − x) on [0, 1]; the raw parameters are λ's logits.

    It adds the normaliser that binary cross entropy lacks on grey images. In terms of the logit η, the density is that
    of an exponential variable truncated to [0, 1], η e^(ηx) / (e^η − 1).

    Source: Loaiza-Ganem and Cunningham (2019), https://arxiv.org/abs/1907.06845.
    """

    def forward(self, raw: Tensor) -> Independent:
        return Independent(TruncatedExponential(raw), 3, validate_args=False)


class Gaussian(Likelihood):
    """Independent normal pixels around the raw parameters, with a single learned standard deviation.

    At its optimum it is the root mean square error of the reconstructions, which balances the two terms of the bound
    without a hyperparameter.

    Args:
        scale: initial standard deviation, greater than 0.

    Source: Rybkin, Daniilidis and Levine (2021), https://arxiv.org/abs/2006.13202.
    """

    def __init__(self, scale: float = 0.25) -> None:
        super().__init__()
        self.log_scale = _ScaleParameter(scale)

    def forward(self, raw: Tensor) -> Independent:
        return Independent(
            Normal(raw, self.log_scale().exp().expand_as(raw), validate_args=False), 3, validate_args=False
        )


class OptimalGaussian(Likelihood):
    """Independent normal pixels around the raw parameters, with the one standard deviation that is best for the batch.

    The most likely σ² is the mean square error over the pixels of the batch. In training, densities have this σ; in
    evaluation, as in batch norm, the root of a running mean of the training's σ², so that they are densities of an
    image alone. (σ has no gradient: at the optimum it is 0.)

    Args:
        momentum: weight of a batch in the running mean, greater than 0 and at most 1; of the first ones, more.

    Raises:
        ValueError: for a momentum out of range.

    Source: Rybkin, Daniilidis and Levine (2021), section 3 (optimal σ-VAE), https://arxiv.org/abs/2006.13202.
    """

    batches: Tensor
    variance: Tensor

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum: must be greater than 0 and at most 1, got {momentum}")
        self.momentum = momentum
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))

    def forward(self, raw: Tensor) -> Independent:
        deviation = self.variance.sqrt().to(raw.dtype).expand_as(raw)
        return _FittedNormal(raw, deviation, self._fit if self.training else None)

    @torch.no_grad()
    def _fit(self, errors: Tensor) -> Tensor:
        """Returns the best σ for errors `(…, B, C, H, W)` and adds its square to the running mean."""
        by_image = errors.square().mean((-3, -2, -1))  # (…, B)
        by_image = by_image.view(-1, by_image.shape[-1]).mean(0)
        means, _ = batch_means({"variance": by_image})
        variance = means["variance"].clamp(min=math.exp(-12))  # as the source's code bounds σ
        weight = (1 / (self.batches + 1)).clamp(min=self.momentum).to(self.variance.dtype)
        self.variance.lerp_(variance.to(self.variance.dtype), weight)
        self.batches += 1
        return variance.sqrt()


class _FittedNormal(Independent):
    """Normal pixels whose density has the deviation that is best for the images of which it is asked."""

    def __init__(self, location: Tensor, deviation: Tensor, fit: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__(Normal(location, deviation, validate_args=False), 3, validate_args=False)
        self.fit = fit

    def expand(self, batch_shape: Shape, _instance: object = None) -> "_FittedNormal":
        shape = torch.Size(batch_shape) + self.event_shape
        return _FittedNormal(self.mean.expand(shape), self.stddev.expand(shape), self.fit)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.fit is None:
            return super().log_prob(value)
        deviation = self.fit(value - self.mean).expand_as(self.mean)
        return Independent(Normal(self.mean, deviation, validate_args=False), 3, validate_args=False).log_prob(value)


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
        self.log_scale = _ScaleParameter(scale)

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

    def forward(self, raw: Tensor) -> "PixelLogisticMixture":
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


class _ScaleParameter(nn.Module):
    """log σ as ten times a parameter, so that optimizers with equal step sizes (Adam) fit σ within an epoch."""

    gain = 10.0

    def __init__(self, start: float) -> None:
        super().__init__()
        if not start > 0:
            raise ValueError(f"scale: must be greater than 0, got {start}")
        self.value = nn.Parameter(torch.tensor(start).log() / self.gain)

    def forward(self) -> Tensor:
        return self.gain * self.value


class TruncatedExponential(Distribution):
    """The density η e^(ηx) / (e^η − 1) on [0, 1], uniform for η = 0.

    Args:
        rate: η, of any shape.
    """

    arg_constraints: ClassVar[dict] = {}
    support = constraints.unit_interval

    def __init__(self, rate: Tensor) -> None:
        super().__init__(rate.shape, validate_args=False)
        self.rate = rate

    def expand(self, batch_shape: Shape, _instance: object = None) -> "TruncatedExponential":
        return TruncatedExponential(self.rate.expand(batch_shape))

    @property
    def mean(self) -> Tensor:
        """1/(1 − e^−η) − 1/η."""
        eta, small = self._apart_from_zero(0.05)
        return torch.where(small, 0.5 + self.rate / 12, -1 / torch.expm1(-eta) - 1 / eta)

    def log_prob(self, value: Tensor) -> Tensor:
        eta, small = self._apart_from_zero(1e-3)
        size = eta.abs()
        # log((e^η − 1)/η) in a form that cannot overflow, and its series around 0
        log_normaliser = functional.relu(eta) + (-torch.expm1(-size)).log() - size.log()
        return self.rate * value - torch.where(small, self.rate / 2 + self.rate.square() / 24, log_normaliser)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        u = torch.rand(shape, dtype=self.rate.dtype, device=self.rate.device)
        eta, small = self._apart_from_zero(1e-3)
        # For −|η| nothing overflows; a variable x of rate −η is 1 − x of rate η.
        falling = torch.log1p(u * torch.expm1(-eta.abs())) / -eta.abs()
        return torch.where(small, u, torch.where(eta < 0, falling, 1 - falling)).clamp(0, 1)

    def _apart_from_zero(self, distance: float) -> tuple[Tensor, Tensor]:
        """η with small values replaced by 1, so that nothing, gradients included, divides by 0; and a mask of them."""
        small = self.rate.abs() < distance
        return torch.where(small, torch.ones_like(self.rate), self.rate), small


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

    def expand(self, batch_shape: Shape, _instance: object = None) -> "PixelLogistic":
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
    def sample(self, sample_shape: Shape = ()) -> Tensor:
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

    def expand(self, batch_shape: Shape, _instance: object = None) -> "PixelLogisticMixture":
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
    def sample(self, sample_shape: Shape = ()) -> Tensor:
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
