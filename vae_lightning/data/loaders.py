"""Batches from tensors that stay on the training device, and the shuffling that all loaders share."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Sampler

from ..engine.shards import Part, bounds
from .sources import Split

__all__ = ["Batches", "Chosen", "EpochShuffle", "ResidentLoader", "take"]


class EpochShuffle(Sampler[int]):
    """A permutation that depends on the seed and the epoch only: not on other random draws, nor on the device.

    Lightning calls `set_epoch` when an epoch starts.

    Args:
        size: number of items.
        seed: at least 0.

    Attributes:
        done: items at the start that the next pass leaves out, once: those that an interrupted epoch has had.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """This epoch's permutation of 0 … size − 1."""
        # PyTorch's generator takes 32 bits of a seed; this mixes both numbers into them.
        (mixed,) = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed))
        return torch.randperm(self.size, generator=generator)

    def remaining(self) -> Tensor:
        """The order without what is done."""
        done, self.done = self.done, 0
        return self.order()[done:]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.remaining().tolist())


class Chosen(NamedTuple):
    """What a process gets of a batch.

    Attributes:
        indices: of its images, `(B,)`.
        part: where they start in the whole batch, and how many images that has; None for the whole.
    """

    indices: NDArray[np.int64]
    part: tuple[int, int] | None = None


class Batches(Sampler[Chosen]):
    """The batches of an epoch, or this process's part of each.

    Args:
        size: number of images.
        batch_size: images in a whole batch; the last one may be shorter.
        sampler: the order of each epoch; by default that of the images.
        rank: number of this process.
        processes: that share each batch.
    """

    def __init__(
        self, size: int, batch_size: int, sampler: EpochShuffle | None = None, rank: int = 0, processes: int = 1
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.sampler = sampler  # Lightning looks for it here, to set its epoch
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[Chosen]:
        order = torch.arange(self.size) if self.sampler is None else self.sampler.remaining()
        for whole in order.split(self.batch_size):
            if self.processes == 1:
                yield Chosen(whole.numpy())
            else:
                start, end = bounds(len(whole), self.rank, self.processes)
                yield Chosen(whole[start:end].numpy(), (start, len(whole)))


def take(split: Split, chosen: Chosen) -> Split | Part:
    """The images and labels that were chosen, gathered on the device where they lie."""
    indices = torch.from_numpy(chosen.indices).to(split.images.device)
    found = split.images[indices], split.labels[indices]
    return Split(*found) if chosen.part is None else Part(*found, *chosen.part)


class ResidentLoader:
    """Batches gathered on the device where the images lie, so that a step copies nothing from the host.

    Args:
        split: images `(N, C, H, W)` and labels `(N,)`, on the training device.
        batches: which images go into each.
    """

    def __init__(self, split: Split, batches: Batches) -> None:
        self.split = split
        self.batches = batches
        self.sampler = batches.sampler
        self.batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Split | Part]:
        return (take(self.split, chosen) for chosen in self.batches)
