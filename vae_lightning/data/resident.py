"""Batches from tensors that stay on the training device, and the shuffling that all loaders share."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from .sources import Split

__all__ = ["EpochShuffle", "ResidentLoader"]


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


class ResidentLoader:
    """Batches gathered on the device where the images lie, so that a step copies nothing from the host.

    Args:
        split: images `(N, C, H, W)` and labels `(N,)`, on the training device.
        batch_size: images in a batch; the last one may be shorter.
        sampler: the order of each epoch; by default that of the images.
    """

    def __init__(self, split: Split, batch_size: int, sampler: EpochShuffle | None = None) -> None:
        self.split = split
        self.batch_size = batch_size
        self.sampler = sampler
        self.batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __len__(self) -> int:
        return -(-len(self.split.images) // self.batch_size)

    def __iter__(self) -> Iterator[Split]:
        images, labels = self.split
        if self.sampler is None:
            yield from map(Split, images.split(self.batch_size), labels.split(self.batch_size))
        else:
            for indices in self.sampler.remaining().to(images.device).split(self.batch_size):
                yield Split(images[indices], labels[indices])
