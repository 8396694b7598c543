"""The contract of a latent space."""

from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor

__all__ = ["Chart", "LatentSpace", "Lattice"]


class Chart(Protocol):
    """The two coordinates in which codes are plotted."""

    @property
    def coordinates(self) -> Tensor:
        """Coordinates of the points `(N, 2)`."""

    @property
    def explained(self) -> Tensor:
        """Fraction of the points' total variance along each axis `(2,)`."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of the axes."""

    @property
    def exact(self) -> bool:
        """Whether these are coordinates of the whole space rather than a reduction."""

    def project(self, points: Tensor) -> Tensor:
        """Returns the coordinates `(N, 2)` of points `(N, D)`."""

    def lift(self, coordinates: Tensor) -> Tensor:
        """Returns the points `(…, D)` at coordinates `(…, 2)`."""


class Lattice(NamedTuple):
    """Codes at regular steps over a whole latent space of one or two axes.

    Attributes:
        coordinates: `(R, S, 2)`; the second falls from row to row. A space with a single axis has one row, in which
            it is 0.
        codes: `(R, S, D)`.
        names: of the axes.
    """

    coordinates: Tensor
    codes: Tensor
    names: tuple[str, str]


class LatentSpace(Protocol):
    """The contract of a latent space.

    Attributes:
        description: completes "a density on …".
        prior, posterior: choices of the config tree that live on it, for messages.
        unbounded: whether codes can have any size.
        continuous: whether codes can be moved a little.
        axes: number of axes of a lattice over the whole space; 0 if it has too many to draw.
    """

    description: ClassVar[str]
    prior: ClassVar[str]
    posterior: ClassVar[str]
    unbounded: ClassVar[bool]
    continuous: ClassVar[bool]
    axes: int

    def __init__(self, latent_dim: int) -> None: ...

    @property
    def origin(self) -> Tensor:
        """The code `(D,)` that is traversed where no image is named."""

    def interpolate(self, start: Tensor, end: Tensor, steps: int) -> Tensor:
        """Returns codes `(…, steps, D)` at equal steps from one code `(…, D)` to another, endpoints included."""

    def traverse(self, code: Tensor, dimensions: Tensor, values: Tensor) -> Tensor:
        """Returns codes `(dimensions, values, D)`: a code `(D,)` moved along one dimension at a time."""

    def lattice(self, cells: int, extent: float | None) -> Lattice:
        """Returns the codes at equal steps, `cells` along each axis.

        Args:
            cells: along each axis.
            extent: half the width of the part of an unbounded space; None for all of a bounded one, and for the usual
                part of an unbounded one.

        Raises:
            UsageError: for an extent in a bounded space.
        """

    def quantiles(self, cells: int) -> Lattice:
        """Returns the codes at equally likely steps under the space's plainest prior, `cells` along each axis."""

    def chart(self, points: Tensor) -> Chart:
        """Returns the chart of codes `(N, D)`; with a single axis the second coordinate is 0."""
