"""The vectors of a codebook."""

from typing import ClassVar

from .euclidean import Euclidean

__all__ = ["CodeVectors"]


class CodeVectors(Euclidean):
    """Sequences of vectors from a finite set, in R^d; paths, traversals and charts also show what lies between them.

    Args:
        latent_dim: d, of the whole sequence.
    """

    description: ClassVar[str] = "the vectors of a codebook"
    prior: ClassVar[str] = "model/prior=uniform_codes"
    posterior: ClassVar[str] = "model/posterior=vq or fsq"
    continuous: ClassVar[bool] = False
