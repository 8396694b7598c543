"""Probability distributions that PyTorch lacks: flows, ladders, pixels, and distributions on the unit sphere."""

from .flow import Autoregressive, Flow
from .ladder import Ladder
from .pixel_logistic import PixelLogistic, PixelLogisticMixture
from .sphere import SphericalUniform, unit_sphere
from .truncated_exponential import TruncatedExponential
from .von_mises_fisher import VonMisesFisher

__all__ = [
    "Autoregressive",
    "Flow",
    "Ladder",
    "PixelLogistic",
    "PixelLogisticMixture",
    "SphericalUniform",
    "TruncatedExponential",
    "VonMisesFisher",
    "unit_sphere",
]
