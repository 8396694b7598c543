"""GECO: the lowest rate for which reconstructions are as good as they have to be."""

import torch
from torch import Tensor

from ..data.batch import Batch
from ..engine.shards import batch_means
from ..rates import rate
from .checks import require_means_only
from .objective import Model, Objective, Terms

__all__ = ["GECO"]

SMALLEST, LARGEST = 1e-6, 1e6  # of the multiplier


class GECO(Objective):
    """rate + λ·C with the constraint C = ‖x − x̃‖² − κ²·P ≤ 0 on reconstructions x̃ of P pixel values.

    The Lagrange multiplier λ rises while the constraint is violated and falls while it holds, so the rate becomes the
    lowest with which reconstructions are off by κ. After each optimizer step λ ← λ·exp(ν·C̄/(κ²·P)), where C̄ is a
    moving average of the batch mean of C: C̄ ← α·C̄ + (1 − α)·C. (The source leaves the size of this step open;
    relative to the tolerance, it does not depend on the size of images.) λ starts at 1 and stays within 10^±6.

    Args:
        tolerance: κ, greater than 0: root mean square error of reconstructions, in units of pixel values.
        smoothing: α, at least 0 and less than 1.
        speed: ν, greater than 0.

    Raises:
        ValueError: for an option out of range; for a likelihood with parameters, which nothing would train.

    Source: Rezende and Viola (2018), algorithm 1, https://arxiv.org/abs/1810.00597.
    """

    average: Tensor
    multiplier: Tensor
    seen: Tensor

    def __init__(self, tolerance: float = 0.15, smoothing: float = 0.99, speed: float = 0.01) -> None:
        super().__init__()
        for name, value in (("tolerance", tolerance), ("speed", speed)):
            if not value > 0:
                raise ValueError(f"{name}: must be a number greater than 0, got {value}")
        if not 0 <= smoothing < 1:
            raise ValueError(f"smoothing: must be at least 0 and less than 1, got {smoothing}")
        self.tolerance, self.smoothing, self.speed = tolerance, smoothing, speed
        # Buffers, so that checkpoints include them.
        self.register_buffer("average", torch.zeros(()))  # C̄/(κ²·P)
        self.register_buffer("multiplier", torch.ones(()))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    def check(self, model: Model) -> None:
        require_means_only(self, model)

    def advance(self) -> None:
        """Moves the multiplier after an optimizer step."""
        self.multiplier.mul_((self.speed * self.average).exp()).clamp_(SMALLEST, LARGEST)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = posterior.rsample()
        decoded = model.decode(z, batch.labels)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        allowed = self.tolerance**2 * batch.images[0].numel()
        constraint = (batch.images - decoded.mean).flatten(1).square().sum(1) - allowed
        loss = found + self.multiplier * constraint
        if self.training:
            self._observe(constraint.detach() / allowed)
        return {
            "loss": loss,
            "distortion": -decoded.log_prob(batch.images),
            "rate": found,
            "constraint": constraint,
            "multiplier": self.multiplier.expand_as(found).clone(),
        }

    def _observe(self, violation: Tensor) -> None:
        """Adds the violation `(B,)` of a batch to the moving average, which starts at the first."""
        means, _ = batch_means({"violation": violation})
        now = means["violation"].to(self.average.dtype)
        self.average.copy_(torch.where(self.seen, self.average.lerp(now, 1 - self.smoothing), now))
        self.seen.fill_(True)
