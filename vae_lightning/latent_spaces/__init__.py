"""Latent spaces: what paths, traversals, lattices and charts of codes are. `LatentSpace` is their contract.

A prior and a posterior's head name the space they live on in the attribute `latent_space`, a class called with the
latent dimension; the default is `Euclidean`. Both must name the same one: densities on different spaces cannot be
compared.
"""

from .code_vectors import CodeVectors
from .euclidean import Euclidean, great_circle
from .lattices import box_lattice, normal_lattice, square_lattice
from .space import Chart, LatentSpace, Lattice
from .sphere import Sphere

__all__ = [
    "Chart",
    "CodeVectors",
    "Euclidean",
    "LatentSpace",
    "Lattice",
    "Sphere",
    "box_lattice",
    "great_circle",
    "normal_lattice",
    "square_lattice",
]
