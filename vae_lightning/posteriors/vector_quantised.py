"""Vector quantisation: each part of the code is the nearest vector of a learned codebook."""

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..engine.shards import whole_batch
from ..precision import full_precision
from .codebook import Codebook, CodeSequence

__all__ = ["VectorQuantisedHead"]


class VectorQuantisedHead(Codebook):
    """Features to a sequence of vectors of a codebook, which follows the encoder by exponential moving averages.

    Gradients pass from the code to the encoder's output as if nothing had been rounded. In training, each vector is the
    moving average of the encoder's outputs that were nearest to it; vectors that are hardly ever used are moved to the
    outputs that are furthest from all vectors.

    Args:
        features: number of input features. If it is the latent dimension, they are the vectors; otherwise a linear map
            of them.
        latent_dim: dimension of z, a multiple of `code_dim`.
        size: number of vectors in the codebook, K.
        code_dim: dimension of each; z has latent_dim / code_dim of them.
        decay: of the moving averages, per batch.
        unused: share of an even use below which a vector is moved.

    Raises:
        ValueError: for a latent dimension that is no multiple of `code_dim`, or an option out of range.

    Source: van den Oord et al. (2017), section 3 and appendix A.1, https://arxiv.org/abs/1711.00937; moving unused
    vectors: Dhariwal et al. (2020), section 3.1, https://arxiv.org/abs/2005.00341.
    """

    vectors: Tensor
    uses: Tensor
    sums: Tensor

    def __init__(
        self,
        features: int,
        latent_dim: int,
        size: int = 256,
        code_dim: int = 4,
        decay: float = 0.99,
        unused: float = 0.05,
    ) -> None:
        if size < 2 or code_dim < 1 or latent_dim % code_dim:
            raise ValueError(
                f"code_dim: latent_dim must be a multiple of it, and size at least 2; got latent_dim={latent_dim}, "
                f"code_dim={code_dim}, size={size}"
            )
        if not (0 <= decay < 1 and 0 <= unused < 1):
            raise ValueError(f"decay, unused: must be at least 0 and less than 1, got {decay} and {unused}")
        super().__init__(latent_dim // code_dim, size, code_dim)
        self.decay, self.unused = decay, unused
        self.project = nn.Identity() if features == latent_dim else nn.Linear(features, latent_dim)
        vectors = torch.empty(size, code_dim).uniform_(-1 / size, 1 / size)
        self.register_buffer("vectors", vectors)
        self.register_buffer("uses", torch.ones(size))
        self.register_buffer("sums", vectors.clone())

    def lookup(self, indices: Tensor) -> Tensor:
        return self.vectors[indices]

    def nearest(self, vectors: Tensor) -> Tensor:
        return self._distances(vectors).argmin(-1)

    def forward(self, features: Tensor) -> CodeSequence:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        found = self.project(features)
        found = found.to(torch.promote_types(found.dtype, torch.float32)).unflatten(-1, (self.positions, self.code_dim))
        indices = self.nearest(found.detach())
        chosen = self.lookup(indices)
        if self.training and torch.is_grad_enabled():
            self._follow(found.detach())
        commitment = (found - chosen).square().sum((-1, -2))
        z = found + (chosen - found).detach()
        return CodeSequence(z.flatten(-2), indices, self, commitment)

    def _distances(self, vectors: Tensor) -> Tensor:
        """Squared distances `(…, K)` from the codebook's vectors, but for a constant."""
        with full_precision(vectors):
            return self.vectors.square().sum(-1) - 2 * vectors @ self.vectors.T

    @torch.no_grad()
    def _follow(self, outputs: Tensor) -> None:
        outputs = whole_batch(outputs).flatten(0, 1)
        distances = self._distances(outputs)
        nearest, indices = distances.min(-1)
        chosen = one_hot(indices, self.size).to(outputs.dtype)
        self.uses.lerp_(chosen.sum(0), 1 - self.decay)
        with full_precision(outputs):
            self.sums.lerp_(chosen.T @ outputs, 1 - self.decay)
        furthest = (nearest + outputs.square().sum(-1)).argsort(descending=True)
        # The n-th of the vectors that are moved takes the n-th of the outputs, the furthest first.
        even = self.uses.mean()
        moved = self.uses < self.unused * even
        place = (moved.cumsum(0) - 1).clamp(0, len(outputs) - 1)
        goal = outputs[furthest[place]]
        self.uses.copy_(torch.where(moved, even, self.uses))
        self.sums.copy_(torch.where(moved.unsqueeze(-1), even * goal, self.sums))
        self.vectors.copy_(self.sums / self.uses.clamp(min=1e-12).unsqueeze(-1))
