"""Priors p(z): modules that return a distribution over codes. `Prior` is their contract."""

from .autoregressive import AutoregressiveCodes
from .class_conditional import ClassConditional
from .fitting import fit
from .flow import FlowPrior
from .gaussian_mixture import GaussianMixture
from .ladder import LadderPrior
from .prior import Prior
from .standard import StandardNormal
from .temperature import tempered
from .two_stage import TwoStage
from .uniform_codes import UniformCodes
from .uniform_sphere import UniformSphere
from .vamp import VampPrior

__all__ = [
    "AutoregressiveCodes",
    "ClassConditional",
    "FlowPrior",
    "GaussianMixture",
    "LadderPrior",
    "Prior",
    "StandardNormal",
    "TwoStage",
    "UniformCodes",
    "UniformSphere",
    "VampPrior",
    "fit",
    "tempered",
]
