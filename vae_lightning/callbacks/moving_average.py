"""An exponential moving average of the weights."""

from functools import partial

from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

__all__ = ["MovingAverage"]


class MovingAverage(WeightAveraging):
    """Averages weights and batch-norm statistics exponentially; the average is validated, tested and kept.

    Integers, such as the steps that an annealed objective counts, are the current ones: Lightning's
    `EMAWeightAveraging` averages them too.

    Args:
        decay: weight of the previous average, in [0, 1); it reaches back about 1 / (1 − decay) steps.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay: must be at least 0 and less than 1, got {decay}")
        super().__init__(avg_fn=partial(_average, decay=decay))


def _average(average: Tensor, current: Tensor, count: Tensor, decay: float) -> Tensor:
    return average.lerp(current, 1 - decay) if current.is_floating_point() else current
