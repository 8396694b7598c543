"""Data sets that are drawn, not read."""

from collections.abc import Callable
from pathlib import Path

from .sources import Split

__all__ = ["Drawn"]


class Drawn:
    """Grey square images that are drawn when they are loaded, the same for the same seed.

    Args:
        draw: returns so many images of a size for a seed.
        train_size: number of training images.
        test_size: number of test images; other ones than the training images.
        image_size: height and width in pixels.
        seed: determines every image.

    Raises:
        ValueError: for a size below 1 (below 8 for `image_size`).
    """

    def __init__(
        self, draw: Callable[[int, int, int], Split], train_size: int, test_size: int, image_size: int, seed: int
    ) -> None:
        for option, value, least in [
            ("train_size", train_size, 1),
            ("test_size", test_size, 1),
            ("image_size", image_size, 8),
        ]:
            if value < least:
                raise ValueError(f"{option}: must be a whole number of at least {least}, got {value}")
        self._draw = draw
        self.sizes = {True: train_size, False: test_size}
        self.image_size = image_size
        self.image_shape = (1, image_size, image_size)
        self.seed = seed

    def prepare(self, root: Path) -> None:
        """Nothing to do."""

    def load(self, root: Path, train: bool) -> Split:
        """Returns the training or the test images."""
        return self._draw(self.sizes[train], self.image_size, 2 * self.seed + train)
