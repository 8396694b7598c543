"""Structural similarity in place of a likelihood."""

from torch import Tensor
from torch.nn import functional
from torchmetrics.functional.image import structural_similarity_index_measure

from ..data.batch import Batch
from ..precision import full_precision
from ..rates import rate
from .checks import at_least, require_means_only
from .objective import Model, Objective, Terms

__all__ = ["MSSSIM", "multiscale_ssim"]

EXPONENTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, the finest first
WINDOW = 11  # pixels, for the Gaussian window with a deviation of 1.5
MARGIN = WINDOW // 2  # pixels at the border, around which the window does not fit
FLOOR = 1e-6  # contrast terms below it, such as negative ones, have no power and no gradient


class MSSSIM(Objective):
    """w·(1 − MS-SSIM) + rate: reconstructions that look alike, instead of likely ones.

    The multi-scale structural similarity of image and reconstruction compares local brightness, contrast and
    structure; it is 1 for equal images. It is the logarithm of no likelihood, so this loss is no bound. `distortion`
    remains −log p(x|z) and is logged alone.

    Args:
        weight: w, at least 0, in nats.

    Raises:
        ValueError: for a negative weight; for a likelihood with parameters, which nothing would train.

    Source: Wang, Simoncelli and Bovik (2003), equation 7, https://doi.org/10.1109/ACSSC.2003.1292216.
    """

    def __init__(self, weight: float = 200.0) -> None:
        super().__init__()
        self.weight = at_least("weight", weight, 0)

    def check(self, model: Model) -> None:
        require_means_only(self, model)

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior = model.encode(batch.images, batch.labels)
        z = posterior.rsample()
        decoded = model.decode(z, batch.labels)
        found = rate(posterior, model.prior_distribution(batch.labels), z)
        similarity = multiscale_ssim(decoded.mean, batch.images)
        return {
            "loss": found + self.weight * (1 - similarity),
            "distortion": -decoded.log_prob(batch.images),
            "rate": found,
            "ms_ssim": similarity,
        }


def multiscale_ssim(one: Tensor, other: Tensor) -> Tensor:
    """Returns the multi-scale structural similarity of images `(B, C, H, W)` with values in [0, 1], `(B,)`.

    As many scales as the window fits, at most five: two for 28 × 28 pixels, three for 64 × 64. Their exponents are the
    first of the source's, divided by their sum. Means go over the windows inside the image, as in the authors' code.
    Only the combination of scales is ours: that of `torchmetrics` has gradients of NaN where contrast is negative, and
    reads back from the device.

    Raises:
        ValueError: for images smaller than the window of 11 × 11 pixels.
    """
    size = min(one.shape[-2:])
    if size < WINDOW:
        raise ValueError(f"objective: MSSSIM needs images of at least {WINDOW} × {WINDOW} pixels, got {size}")
    scales = min(len(EXPONENTS), (size // WINDOW).bit_length())
    total = one.new_zeros(len(one))
    with full_precision(one):  # variances are differences of means of squares
        for scale in range(scales):
            last = scale == scales - 1
            _, found = structural_similarity_index_measure(
                one,
                other,
                data_range=1.0,
                reduction="none",
                return_full_image=last,
                return_contrast_sensitivity=not last,
            )
            if last:  # torchmetrics crops contrasts to the windows inside the image, but not this
                found = found[..., MARGIN:-MARGIN, MARGIN:-MARGIN].mean((1, 2, 3))
            total = total + EXPONENTS[scale] / sum(EXPONENTS[:scales]) * found.clamp(min=FLOOR).log()
            one, other = functional.avg_pool2d(one, 2), functional.avg_pool2d(other, 2)
    return total.exp()
