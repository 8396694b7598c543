"""Likelihoods p(x|z): from a decoder's raw output to a distribution over images.

A likelihood is a module that maps raw parameters to a `torch.distributions` object with batch shape `(…)` and the
image `(C, H, W)` as its event. Its `mean` is the image that is shown. Any parameters of the likelihood itself, such as
a learned scale, belong to it and not to the decoder. `Likelihood` is the contract.
"""

from .bernoulli import Bernoulli, ContinuousBernoulli
from .gaussian import Gaussian, OptimalGaussian
from .grey_levels import DiscretizedLogistic, LogisticMixture
from .likelihood import Likelihood

__all__ = [
    "Bernoulli",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Gaussian",
    "Likelihood",
    "LogisticMixture",
    "OptimalGaussian",
]
