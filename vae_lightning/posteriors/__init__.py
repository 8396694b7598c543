"""Posteriors q(z|x): heads that make them from an encoder's features, and functions of any posterior distribution.

**Head** `(features, latent_dim, …)`
    A module that maps features `(B, features)` to the posterior: a `torch.distributions` object with batch shape
    `(B,)`, event shape `(latent_dim,)`, `rsample` and `log_prob`. An architecture's encoder makes its head itself,
    from what the option `posterior` names (in the config tree, `model/posterior`), called with the first two
    arguments. A head whose codes do not lie in R^d names their space in the attribute `latent_space`; see
    `vae_lightning.latent_spaces`.
"""

from .flow import FlowHead
from .full_covariance import FullCovarianceHead
from .functions import moments, point, spread, stopped
from .gaussian import GaussianHead
from .head import Head, latent_space_of
from .iaf import InverseAutoregressiveHead
from .ladder import LadderHead
from .nsf import NeuralSplineHead
from .von_mises_fisher import VonMisesFisherHead

__all__ = [
    "FlowHead",
    "FullCovarianceHead",
    "GaussianHead",
    "Head",
    "InverseAutoregressiveHead",
    "LadderHead",
    "NeuralSplineHead",
    "VonMisesFisherHead",
    "latent_space_of",
    "moments",
    "point",
    "spread",
    "stopped",
]
