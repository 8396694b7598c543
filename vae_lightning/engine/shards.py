"""Shards, each process's share of a batch, and means over the whole batch.

Training on several devices equals training on one, up to the order of floating-point sums: `batch_size` is the total
over all devices, each image gets the same noise (`noise`), and batch norm sees the whole batch (`batch_norm`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .noise import WholeBatchNoise

__all__ = ["Shard", "batch_means", "bounds", "sharded", "whole_batch"]


class Shard(NamedTuple):
    """One process's share of a batch, with at least one image.

    Attributes:
        batch: a named tuple of tensors whose first axis has the length of the shard.
        start: index of its first image in the whole batch.
        total: number of images in the whole batch.
    """

    batch: Any
    start: int
    total: int


def bounds(total: int, rank: int, processes: int) -> tuple[int, int]:
    """Returns the start and end of a process's shard of a batch; shard sizes differ by at most one image.

    >>> [bounds(10, rank, 4) for rank in range(4)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """
    return total * rank // processes, total * (rank + 1) // processes


_current: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def sharded(shard: Shard) -> Iterator[None]:
    """Returns a context in which random draws and `batch_means` are those of the whole batch."""
    token = _current.set(shard)
    try:
        with WholeBatchNoise(len(shard.batch[0]), shard.start, shard.total):
            yield
    finally:
        _current.reset(token)


def batch_means(terms: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Returns the means of terms `(B,)` over the whole batch, across all processes, and its number of images.

    Gradients are those of this process's shard; averaged over processes, as by DDP, they equal the whole batch's.
    """
    shard = _current.get()
    if shard is None:
        return {name: term.mean() for name, term in terms.items()}, len(next(iter(terms.values())))
    weight = dist.get_world_size() / shard.total
    mine = torch.stack([term.sum() for term in terms.values()]) * weight
    total = mine.detach().clone()
    dist.all_reduce(total)
    means = mine + (total / dist.get_world_size() - mine.detach())
    return dict(zip(terms, means, strict=True)), shard.total


def whole_batch(tensor: Tensor) -> Tensor:
    """Returns the rows of all processes' shards of a batch, in order and without gradients: `(total, …)`."""
    shard = _current.get()
    if shard is None:
        return tensor.detach()
    whole = tensor.new_zeros(shard.total, *tensor.shape[1:])
    whole[shard.start : shard.start + len(tensor)] = tensor.detach()
    dist.all_reduce(whole)
    return whole
