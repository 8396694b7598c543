"""Probability distributions that PyTorch lacks: flows, and distributions on the unit sphere."""

from .flow import Autoregressive, Flow
from .sphere import SphericalUniform, unit_sphere
from .von_mises_fisher import VonMisesFisher

__all__ = ["Autoregressive", "Flow", "SphericalUniform", "VonMisesFisher", "unit_sphere"]
