"""Probability distributions that PyTorch lacks: flows, ladders, and distributions on the unit sphere."""

from .flow import Autoregressive, Flow
from .ladder import Ladder
from .sphere import SphericalUniform, unit_sphere
from .von_mises_fisher import VonMisesFisher

__all__ = ["Autoregressive", "Flow", "Ladder", "SphericalUniform", "VonMisesFisher", "unit_sphere"]
