"""An autoregressive prior on sequences of codes."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from ..latent_spaces import CodeVectors
from ..posteriors import Codebook, codebook_of
from .prior import Prior
from .temperature import tempered

__all__ = ["AutoregressiveCodes"]


class AutoregressiveCodes(Prior):
    """p(z) = Π_i p(z_i | z_1, …, z_{i−1}) of sequences of codes, by a causal transformer (PyTorch's).

    Args:
        positions: length of a sequence, P.
        size: number of codes, K.
        width: of the transformer.
        layers: of the transformer.
        heads: of its attention; they divide the width.

    Source: van den Oord et al. (2017), section 3.3, https://arxiv.org/abs/1711.00937, with a transformer (Vaswani et
    al. 2017) in place of a PixelCNN.
    """

    latent_space = CodeVectors
    mask: Tensor

    def __init__(self, positions: int, size: int, width: int = 64, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.positions, self.size = positions, size
        self.start = nn.Parameter(torch.zeros(width))
        self.codes = nn.Embedding(size, width)
        self.places = nn.Parameter(0.02 * torch.randn(positions, width))
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.logits = nn.Linear(width, size)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(positions), persistent=False)
        self._codebook: tuple[Codebook, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the codebook, which remains the encoder's."""
        super().attach(encoder)
        codebook = codebook_of(encoder)
        if (codebook.positions, codebook.size) != (self.positions, self.size):
            raise ValueError(
                f"prior: is one of {self.positions} of {self.size} codes, but the encoder has {codebook.positions} of "
                f"{codebook.size}"
            )
        self._codebook = (codebook,)

    def forward(self, indices: Tensor) -> Tensor:
        """Returns the logits `(N, n + 1, K)` of each code and the next, given the first n ≤ P − 1 codes `(N, n)`."""
        count, length = indices.shape
        embedded = torch.cat([self.start.expand(count, 1, -1), self.codes(indices)], 1) + self.places[: length + 1]
        return self.logits(self.layers(embedded, mask=self.mask[: length + 1, : length + 1], is_causal=True))

    def distribution(self) -> "_Autoregression":
        (codebook,) = self._codebook
        return _Autoregression(self, codebook)


class _Autoregression(Distribution):
    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(self, network: AutoregressiveCodes, codebook: Codebook, temperature: float = 1.0) -> None:
        self.network, self.codebook, self.temperature = network, codebook, temperature
        super().__init__(torch.Size(), torch.Size([codebook.positions * codebook.code_dim]), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        count = torch.Size(sample_shape).numel()
        indices = torch.zeros(count, 0, dtype=torch.int64, device=self.network.start.device)
        with torch.no_grad():
            for _ in range(self.codebook.positions):
                logits = self.network(indices)[:, -1]
                # Divided by the temperature, as is usual for categories; at 0 the likeliest code is certain.
                probabilities = (logits / max(self.temperature, 1e-6)).softmax(-1)
                indices = torch.cat([indices, probabilities.multinomial(1)], 1)
        return self.codebook.decode(indices).view(*sample_shape, -1)

    def log_prob(self, z: Tensor) -> Tensor:
        indices = self.codebook.encode(z).reshape(-1, self.codebook.positions)
        log_probabilities = self.network(indices[:, :-1]).log_softmax(-1)
        return log_probabilities.gather(-1, indices.unsqueeze(-1)).sum((1, 2)).view(z.shape[:-1])


@tempered.register
def _(prior: _Autoregression, temperature: float) -> _Autoregression:
    return _Autoregression(prior.network, prior.codebook, temperature * prior.temperature)
