"""The prior of a ladder of latent variables."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..distributions.ladder import Ladder, TopDown
from .prior import Prior

__all__ = ["LadderPrior"]


class LadderPrior(Prior):
    """The prior of a ladder of latent variables, whose networks are those of the model's `LadderHead`.

    Source: Sønderby et al. (2016), equations 1 to 3, https://arxiv.org/abs/1602.02282.
    """

    def __init__(self) -> None:
        super().__init__()
        self._top_down: tuple[TopDown, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the networks, which remain the encoder's.

        Raises:
            ValueError: if the encoder has no `LadderHead`.
        """
        self._top_down = tuple(module for module in encoder.modules() if isinstance(module, TopDown))
        if len(self._top_down) != 1:
            raise ValueError("prior: ladder needs the ladder's posterior; choose model/posterior=ladder")

    def distribution(self) -> Ladder:
        (top_down,) = self._top_down
        return Ladder(top_down)

    def variations(self, count: int) -> Mapping[str, Tensor]:
        """Returns codes whose highest levels are the same, from all levels but the lowest to the highest alone."""
        ladder = self.distribution()
        sizes = ladder.top_down.sizes
        from_the_top = ladder.sample().split(sizes)[::-1]
        rows = {}
        for fixed in reversed(range(1, len(sizes))):
            given = [part.expand(count, -1) for part in from_the_top[:fixed]]
            lowest = len(sizes) - fixed + 1
            name = f"level {lowest}" if fixed == 1 else f"levels {lowest} to {len(sizes)}"
            rows[f"same {name}"] = ladder.descend(torch.normal, given)
        return rows
