"""The evenness of paths of images."""

import torch
from torch import Tensor

__all__ = ["path_unevenness"]


def path_unevenness(pictures: Tensor) -> Tensor:
    """Returns the longest step as a fraction of the length, for each of N paths of images `(N, steps, …)`: `(N,)`.

    1/(steps − 1) is an even transition, 1 a single jump. Steps are measured by the Euclidean distance of the pixels.
    """
    steps = pictures.diff(dim=1).flatten(2).norm(dim=2)
    return steps.amax(1) / steps.sum(1).clamp(min=torch.finfo(steps.dtype).tiny)
