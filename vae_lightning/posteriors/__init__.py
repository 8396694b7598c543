"""Posteriors q(z|x): heads that make them from an encoder's features, and functions of any posterior distribution.

**Head** `(features, latent_dim, …)`
    A module that maps features `(B, features)` to the posterior: a `torch.distributions` object with batch shape
    `(B,)`, event shape `(latent_dim,)`, `rsample` and `log_prob`. An architecture's encoder makes its head itself,
    from what the option `posterior` names (in the config tree, `model/posterior`), called with the first two
    arguments.
"""

from collections.abc import Callable

from torch import nn

from .functions import moments, point, spread, stopped
from .gaussian import GaussianHead
from .ladder import LadderHead

__all__ = ["GaussianHead", "Head", "LadderHead", "moments", "point", "spread", "stopped"]

Head = Callable[[int, int], nn.Module]
