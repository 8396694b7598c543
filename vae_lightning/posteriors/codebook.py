"""Codes from a finite set: what a codebook is, and distributions over sequences of its codes."""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.distributions.constraints import Constraint

from ..latent_spaces import CodeVectors
from ..rates import log_prob_of_each
from .functions import moments, stopped, symbols

__all__ = ["CodeSequence", "CodeUniform", "Codebook", "codebook_of"]


class Codebook(nn.Module):
    """Base class of heads whose codes are sequences of vectors from a finite set: z is the vectors one after another.

    Args:
        positions: length of a sequence, P.
        size: number of vectors in the set, K.
        code_dim: dimension of each.
    """

    latent_space = CodeVectors

    def __init__(self, positions: int, size: int, code_dim: int) -> None:
        super().__init__()
        self.positions, self.size, self.code_dim = positions, size, code_dim

    def lookup(self, indices: Tensor) -> Tensor:
        """Returns the vectors `(…, code_dim)` with these numbers `(…)`."""
        raise NotImplementedError

    def nearest(self, vectors: Tensor) -> Tensor:
        """Returns the numbers `(…)` of the vectors of the set that are nearest to given ones `(…, code_dim)`."""
        raise NotImplementedError

    def decode(self, indices: Tensor) -> Tensor:
        """Returns the codes `(…, P · code_dim)` of sequences of numbers `(…, P)`."""
        return self.lookup(indices).flatten(-2)

    def encode(self, z: Tensor) -> Tensor:
        """Returns the sequences of numbers `(…, P)` of codes `(…, P · code_dim)`."""
        return self.nearest(z.unflatten(-1, (self.positions, self.code_dim)))


def codebook_of(encoder: nn.Module) -> Codebook:
    """Returns the codebook of an encoder; raises `ValueError` if it has none."""
    found = next((module for module in encoder.modules() if isinstance(module, Codebook)), None)
    if found is None:
        raise ValueError("prior: is one of codes, but the encoder has no codebook; choose model/posterior=vq or fsq")
    return found


class CodeSequence(Distribution):
    """All probability on one sequence of codes for each image: what a deterministic encoder returns.

    Its `log_prob` is the logarithm of a probability, not of a density, and 0: the rate is −log p(z).

    Args:
        z: codes `(B, latent_dim)`, through which gradients reach the encoder.
        indices: the numbers of their vectors `(B, P)`.
        codebook: their set.
        commitment: squared distance `(B,)` of the encoder's output from the code that was chosen.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}
    has_rsample = True

    def __init__(self, z: Tensor, indices: Tensor, codebook: Codebook, commitment: Tensor) -> None:
        self.z, self.indices, self.codebook, self.commitment = z, indices, codebook, commitment
        super().__init__(z.shape[:-1], z.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.z

    @property
    def variance(self) -> Tensor:
        return torch.zeros_like(self.z)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.z.expand(*sample_shape, *self.z.shape)

    def log_prob(self, z: Tensor) -> Tensor:
        return z.new_zeros(z.shape[:-1])


class CodeUniform(Distribution):
    """Every sequence of codes is equally likely: p(z) = K^(−P).

    Args:
        codebook: the set.
        like: a tensor, on whose device samples are.
    """

    arg_constraints: ClassVar[dict[str, Constraint]] = {}

    def __init__(self, codebook: Codebook, like: Tensor) -> None:
        self.codebook, self.like = codebook, like
        super().__init__(torch.Size(), torch.Size([codebook.positions * codebook.code_dim]), validate_args=False)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = (*sample_shape, self.codebook.positions)
        return self.codebook.decode(torch.randint(self.codebook.size, shape, device=self.like.device))

    def log_prob(self, z: Tensor) -> Tensor:
        return z.new_full(z.shape[:-1], -self.codebook.positions * math.log(self.codebook.size))


@moments.register
def _(posterior: CodeSequence) -> tuple[Tensor, Tensor]:
    return posterior.mean, posterior.variance


@stopped.register
def _(posterior: CodeSequence) -> CodeSequence:
    return posterior


@symbols.register
def _(posterior: CodeSequence) -> tuple[Tensor, int]:
    return posterior.indices, posterior.codebook.size


@log_prob_of_each.register
def _(posterior: CodeSequence, z: Tensor) -> None:
    return None
