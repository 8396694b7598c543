"""Normal pixels with one standard deviation, learned or fitted."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.distributions import Independent, Normal

from ..engine.shards import batch_means
from .likelihood import Likelihood
from .scale import ScaleParameter

__all__ = ["Gaussian", "OptimalGaussian"]


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
        self.log_scale = ScaleParameter(scale)

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

    def expand(self, batch_shape: Sequence[int], _instance: object = None) -> "_FittedNormal":
        shape = torch.Size(batch_shape) + self.event_shape
        return _FittedNormal(self.mean.expand(shape), self.stddev.expand(shape), self.fit)

    def log_prob(self, value: Tensor) -> Tensor:
        if self.fit is None:
            return super().log_prob(value)
        deviation = self.fit(value - self.mean).expand_as(self.mean)
        return Independent(Normal(self.mean, deviation, validate_args=False), 3, validate_args=False).log_prob(value)
