"""Training objectives, as functions of a model and a batch. `Objective` is their contract."""

from .annealed import Annealed
from .elbo import ELBO, AsPrinted, Beta, FreeBits
from .iwae import IWAE
from .mmd import MMD
from .objective import Model, Objective, Player, Terms
from .tc import TC

__all__ = [
    "ELBO",
    "IWAE",
    "MMD",
    "TC",
    "Annealed",
    "AsPrinted",
    "Beta",
    "FreeBits",
    "Model",
    "Objective",
    "Player",
    "Terms",
]
