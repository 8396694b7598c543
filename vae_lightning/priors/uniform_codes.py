"""The uniform prior on sequences of codes."""

import torch
from torch import Tensor, nn

from ..latent_spaces import CodeVectors
from ..posteriors import Codebook, CodeUniform, codebook_of
from .prior import Prior

__all__ = ["UniformCodes"]


class UniformCodes(Prior):
    """Every sequence of the codebook's vectors is equally likely: the rate is P log K, whatever the image.

    It is the prior in training; `vae-generate fit-prior RUN --kind autoregressive` learns which sequences occur.

    Source: van den Oord et al. (2017), section 3.1, https://arxiv.org/abs/1711.00937.
    """

    latent_space = CodeVectors
    like: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("like", torch.zeros(()), persistent=False)
        self._codebook: tuple[Codebook, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the codebook, which remains the encoder's."""
        super().attach(encoder)
        self._codebook = (codebook_of(encoder),)

    def distribution(self) -> CodeUniform:
        (codebook,) = self._codebook
        return CodeUniform(codebook, self.like)
