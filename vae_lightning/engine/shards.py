"""Shards: each process's share of a batch, and means over the whole of it.

A training on several devices is the training on one, but for the order in which numbers are added: `batch_size` counts
the images of all devices together, each image gets the noise that it would get on one (`noise`), and batch norm sees
all of them (`batch_norm`).
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .noise import WholeBatchNoise

__all__ = ["Shard", "batch_means", "bounds", "sharded"]


class Shard(NamedTuple):
    """This process's share of a batch, at least one image of it.

    Attributes:
        batch: a named tuple of tensors whose first axis has the length of the shard.
        start: position of its first image in the whole batch.
        total: images in the whole batch.
    """

    batch: Any
    start: int
    total: int


def bounds(total: int, rank: int, processes: int) -> tuple[int, int]:
    """Returns where a process's shard of a batch starts and ends; shards differ by one image at most.

    >>> [bounds(10, rank, 4) for rank in range(4)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """
    return total * rank // processes, total * (rank + 1) // processes


_current: ContextVar[Shard | None] = ContextVar("shard", default=None)


@contextmanager
def sharded(shard: Shard) -> Iterator[None]:
    """Inside it random draws are those of the whole batch, and `batch_means` are means over it."""
    token = _current.set(shard)
    try:
        with WholeBatchNoise(len(shard.batch[0]), shard.start, shard.total):
            yield
    finally:
        _current.reset(token)


def batch_means(terms: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int]:
    """Returns the means of terms `(B,)` over the whole batch, wherever its shards are, and the number of its images.

    Their gradients are those of this process's share: averaged over processes, as DDP does, they are the whole batch's.
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
