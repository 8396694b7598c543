"""The batch that a model is trained and evaluated on."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Batch"]


class Batch(NamedTuple):
    """Images and, if known, their classes.

    Attributes:
        images: `(B, C, H, W)`, float in [0, 1]; uint8 until the batch is on the training device.
        labels: `(B,)`, int64, −1 where one is hidden, or None without labels.
    """

    images: Tensor
    labels: Tensor | None = None

    def on(self, device: torch.device) -> "Batch":
        """Returns the batch on a device."""
        return Batch(self.images.to(device), None if self.labels is None else self.labels.to(device))
