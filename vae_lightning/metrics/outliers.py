"""How well a model tells the images of its data from those of another data set, by the bound of each image.

A high bound does not make an image one of the data's: simple images have high ones under almost any model (Nalisnick
et al. 2019, https://arxiv.org/abs/1810.09136). Two other scores are held against it. Neither needs a second model:

`typicality`
    images of the data have a usual bound, which others may exceed as well as miss.
`complexity`
    what a lossless compressor needs for an image stands for what any model would need. (A background model, as of Ren
    et al. 2019, https://arxiv.org/abs/1906.02845, would have to be trained.)
"""

import io
import math

import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

__all__ = ["auroc", "code_length", "complexity", "typicality"]


def typicality(bounds: Tensor, usual: float) -> Tensor:
    """Returns the distance of bounds `(N,)` from the mean bound of training images: high for outliers.

    Source: Nalisnick et al. (2019), Detecting Out-of-Distribution Inputs to Deep Generative Models Using Typicality,
    section 3, for single images, https://arxiv.org/abs/1906.02994.
    """
    return (bounds - usual).abs()


def complexity(bounds: Tensor, lengths: Tensor) -> Tensor:
    """Returns what a model needs for images beyond a compressor, in bits `(N,)`: high for outliers.

    It is the log-ratio of a universal model's likelihood, 2 to the minus length, to the model's. A density of grey
    values instead of probabilities adds a constant, which changes no ranking.

    Args:
        bounds: of log p(x), in nats, `(N,)`.
        lengths: see `code_length`.

    Source: Serrà et al. (2020), section 3, https://arxiv.org/abs/1909.11480.
    """
    return -bounds / math.log(2) - lengths


def code_length(images: Tensor) -> Tensor:
    """Returns the bits that images `(N, C, H, W)` in [0, 1], of 256 grey levels, take as PNG files: `(N,)`."""
    if images.shape[1] not in (1, 3):  # channels that are no colours, below each other
        images = images.flatten(1, 2).unsqueeze(1)
    lengths = []
    for image in images.clamp(0, 1).cpu():
        file = io.BytesIO()
        to_pil_image((image * 255).round().byte()).save(file, "PNG", compress_level=9)
        lengths.append(8.0 * file.tell())
    return torch.tensor(lengths)


def auroc(inside: Tensor, outside: Tensor) -> float:
    """Returns the area under the ROC curve of scores: how often an outlier has a higher one than an image of the data.

    Args:
        inside: scores of images of the data `(N,)`.
        outside: scores of outliers `(M,)`.

    1 is perfect, 0.5 chance; below it, outliers look more like the data than the data's own images.
    """
    labels = torch.cat([torch.zeros(len(inside)), torch.ones(len(outside))])
    return float(roc_auc_score(labels.numpy(), torch.cat([inside, outside]).cpu().double().numpy()))
