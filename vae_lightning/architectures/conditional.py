"""Labels for the encoder and the decoder of any architecture: each class is a learned vector beside what they get.

The encoder gets it as additional channels of the image, the decoder as additional dimensions of the code, so that
neither needs to know of labels. An unknown label, None for a whole batch or a negative number for an image of it, is
the mean of all classes' vectors: it is defined without having been trained, and trained by `data.label_dropout`.

Source: Sohn, Lee and Yan (2015), https://papers.nips.cc/paper/5775; Kingma et al. (2014), section 2.1,
https://arxiv.org/abs/1406.5298.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.nn.functional import embedding

from ..conditioning import is_conditional

__all__ = ["ConditionalDecoder", "ConditionalEncoder", "Labels"]


class Labels:
    """Makes an encoder and a decoder conditional, which must be built for the additional channels and dimensions.

    Args:
        image_shape: `(C, H, W)` of the images, without the additional channels.
        classes: number of classes, at least 1; labels are numbers from 0.
        channels: additional channels of the encoder's images, at least 1.
        features: additional dimensions of the decoder's codes, at least 1.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(self, image_shape: Sequence[int], classes: int = 10, channels: int = 1, features: int = 16) -> None:
        for option, value in [("classes", classes), ("channels", channels), ("features", features)]:
            if value < 1:
                raise ValueError(f"{option}: must be a whole number of at least 1, got {value}")
        self.planes = (channels, *image_shape[1:])
        self.classes = classes
        self.features = features

    def __call__(self, encoder: nn.Module, decoder: nn.Module) -> tuple[nn.Module, nn.Module]:
        """Returns both networks with labels as a second argument; raises `ValueError` if one has labels already."""
        for part in (encoder, decoder):
            if is_conditional(part):
                raise ValueError(f"labels: {type(part).__name__} is given labels already; choose model/labels=none")
        return ConditionalEncoder(encoder, self.planes, self.classes), ConditionalDecoder(
            decoder, self.features, self.classes
        )


class ConditionalEncoder(nn.Module):
    """q(z|x, y): an encoder of images with additional channels, a learned picture for each class.

    Args:
        encoder: for images `(C + channels, H, W)`.
        planes: `(channels, H, W)`.
        classes: number of classes.
    """

    conditional = True

    def __init__(self, encoder: nn.Module, planes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classes = classes
        self.planes = tuple(planes)
        self.pictures = ClassVectors(classes, prod(planes))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """Returns the posteriors of images `(B, C, H, W)` with labels `(B,)`, or None."""
        pictures = self.pictures(labels).unflatten(-1, self.planes)
        return self.encoder(torch.cat([x, pictures.expand(x.shape[0], *self.planes)], 1))


class ConditionalDecoder(nn.Module):
    """p(x|z, y): a decoder of codes with additional dimensions, a learned vector for each class.

    Args:
        decoder: for codes `(…, latent_dim + features)`.
        features: length of the vectors.
        classes: number of classes.
    """

    conditional = True

    def __init__(self, decoder: nn.Module, features: int, classes: int) -> None:
        super().__init__()
        self.decoder = decoder
        self.classes = classes
        self.vectors = ClassVectors(classes, features)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns the raw parameters of codes `(…, B, latent_dim)` with labels `(B,)`, or None."""
        return self.decoder(torch.cat([z, self.vectors(labels).expand(*z.shape[:-1], -1)], -1))


class ClassVectors(nn.Module):
    """A learned vector for each class, and their mean for an unknown one.

    Args:
        classes: number of classes.
        features: length of the vectors.
    """

    def __init__(self, classes: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes, features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the vectors from a standard normal distribution."""
        nn.init.normal_(self.weight)

    def forward(self, labels: Tensor | None) -> Tensor:
        """Returns vectors `(B, features)` of labels `(B,)`, negative ones being unknown; `(features,)` for None."""
        mean = self.weight.mean(0, keepdim=True)
        if labels is None:
            return mean[0]
        return embedding(labels.clamp(min=-1) + 1, torch.cat([mean, self.weight]))
