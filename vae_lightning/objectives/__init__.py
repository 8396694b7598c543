"""Training objectives, as functions of a model and a batch. `Objective` is their contract."""

from .adversarial import Adversarial
from .annealed import Annealed
from .as_printed import AsPrinted
from .beta import Beta
from .ciwae import CIWAE
from .dip import DIPI, DIPII
from .dreg import DReG
from .elbo import ELBO
from .factor import Factor
from .free_bits import FreeBits
from .geco import GECO
from .iwae import IWAE
from .m2 import M2
from .miwae import MIWAE
from .mmd import MMD
from .ms_ssim import MSSSIM
from .objective import Model, Objective, Player, Terms
from .piwae import PIWAE
from .rae import RAEGP, RAEL2
from .tc import TC
from .vae_gan import VAEGAN
from .vq import VQ
from .wae_mmd import WAEMMD

__all__ = [
    "CIWAE",
    "DIPI",
    "DIPII",
    "ELBO",
    "GECO",
    "IWAE",
    "M2",
    "MIWAE",
    "MMD",
    "MSSSIM",
    "PIWAE",
    "RAEGP",
    "RAEL2",
    "TC",
    "VAEGAN",
    "VQ",
    "WAEMMD",
    "Adversarial",
    "Annealed",
    "AsPrinted",
    "Beta",
    "DReG",
    "Factor",
    "FreeBits",
    "Model",
    "Objective",
    "Player",
    "Terms",
]
