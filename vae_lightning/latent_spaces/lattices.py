"""Lattices of two coordinates."""

import torch
from torch import Tensor

__all__ = ["box_lattice", "normal_lattice", "square_lattice"]


def box_lattice(box: Tensor, columns: int, rows: int) -> Tensor:
    """Returns coordinates `(rows, columns, 2)` at equal steps of a box `(2, 2)`, its lowest and highest corner.

    The second coordinate falls from row to row; a single row lies in the middle.
    """
    first = torch.lerp(box[0, 0], box[1, 0], torch.linspace(0, 1, columns))
    second = torch.lerp(box[1, 1], box[0, 1], torch.linspace(0, 1, rows) if rows > 1 else torch.tensor([0.5]))
    rows_of, columns_of = torch.meshgrid(second, first, indexing="ij")
    return torch.stack([columns_of, rows_of], dim=-1)


def square_lattice(extent: float, cells: int) -> Tensor:
    """Returns codes `(cells, cells, 2)` at equal steps from −extent to extent.

    The second coordinate falls from row to row.
    """
    return _lattice(torch.linspace(-extent, extent, cells))


def normal_lattice(cells: int) -> Tensor:
    """Returns codes `(cells, cells, 2)` at equally likely steps of a standard normal; rows as in `square_lattice`.

    The steps are the quantiles at (i + ½)/cells.
    """
    return _lattice(torch.special.ndtri((torch.arange(cells) + 0.5) / cells))


def _lattice(steps: Tensor) -> Tensor:
    second, first = torch.meshgrid(steps.flip(0), steps, indexing="ij")
    return torch.stack([first, second], dim=-1)
