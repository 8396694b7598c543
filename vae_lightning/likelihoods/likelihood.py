"""The contract of a likelihood."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributions import Distribution

__all__ = ["Likelihood"]


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
