"""Posteriors q(z|x): heads that make them from an encoder's features, and functions of any posterior distribution.

**Head** `(features, latent_dim, …)`
    A module that maps features `(B, features)` to the posterior: a `torch.distributions` object with batch shape
    `(B,)`, event shape `(latent_dim,)`, `rsample` and `log_prob`. An architecture's encoder makes its head itself,
    from what the option `posterior` names (in the config tree, `model/posterior`), called with the first two
    arguments. A head whose codes do not lie in R^d names their space in the attribute `latent_space`; see
    `vae_lightning.latent_spaces`.
"""

from .codebook import Codebook, CodeSequence, CodeUniform, codebook_of
from .deterministic import DeterministicHead, is_deterministic
from .finite_scalar import FiniteScalarHead
from .flow import FlowHead
from .full_covariance import FullCovarianceHead
from .functions import moments, point, spread, stopped, symbols
from .gaussian import GaussianHead
from .head import Head, latent_space_of
from .iaf import InverseAutoregressiveHead
from .ladder import LadderHead
from .nsf import NeuralSplineHead
from .vector_quantised import VectorQuantisedHead
from .von_mises_fisher import VonMisesFisherHead

__all__ = [
    "CodeSequence",
    "CodeUniform",
    "Codebook",
    "DeterministicHead",
    "FiniteScalarHead",
    "FlowHead",
    "FullCovarianceHead",
    "GaussianHead",
    "Head",
    "InverseAutoregressiveHead",
    "LadderHead",
    "NeuralSplineHead",
    "VectorQuantisedHead",
    "VonMisesFisherHead",
    "codebook_of",
    "is_deterministic",
    "latent_space_of",
    "moments",
    "point",
    "spread",
    "stopped",
    "symbols",
]
