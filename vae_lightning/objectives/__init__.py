"""Training objectives, as functions of a model and a batch. `Objective` is their contract."""

from .annealed import Annealed
from .as_printed import AsPrinted
from .beta import Beta
from .elbo import ELBO
from .free_bits import FreeBits
from .iwae import IWAE
from .m2 import M2
from .mmd import MMD
from .objective import Model, Objective, Player, Terms
from .tc import TC

__all__ = [
    "ELBO",
    "IWAE",
    "M2",
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
