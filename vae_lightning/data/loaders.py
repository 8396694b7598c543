"""The order of the images, and batches of images that stay on the training device or are fetched by workers."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, SequentialSampler

from ..engine.shards import Shard, bounds
from .batch import Batch
from .images import Images, StoredImages

__all__ = ["Batches", "Chosen", "EpochShuffle", "ResidentLoader", "SourceOrder", "worker_loader"]


class EpochShuffle(Sampler[int]):
    """A permutation that depends on the seed and the epoch only: not on other random draws, nor on the device.

    Lightning calls `set_epoch` when an epoch starts.

    Args:
        size: number of items.
        seed: at least 0.

    Attributes:
        done: number of leading items that the next pass skips, once, because an interrupted epoch already had them.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self.epoch = 0
        self.done = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> Tensor:
        """Returns this epoch's permutation of 0 … size − 1."""
        # PyTorch's generator takes 32 bits of a seed; this mixes both numbers into them.
        (mixed,) = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(mixed))
        return torch.randperm(self.size, generator=generator)

    def remaining(self) -> Tensor:
        """Returns the order without the items that are done."""
        done, self.done = self.done, 0
        return self.order()[done:]

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        return iter(self.remaining().tolist())


class SourceOrder(EpochShuffle, SequentialSampler):
    """The source's order in every epoch. The base class tells Lightning that nothing is shuffled.

    Args:
        size: number of items.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size, seed=0)

    def order(self) -> Tensor:
        """Returns 0 … size − 1."""
        return torch.arange(self.size)


class Chosen(NamedTuple):
    """The images of a batch that a process gets.

    Attributes:
        indices: `(B,)`.
        shard: where they start in the whole batch, and its number of images; None for the whole batch.
    """

    indices: NDArray[np.int64]
    shard: tuple[int, int] | None = None


class Batches(Sampler[Chosen]):
    """The batches of an epoch, or this process's shard of each.

    Args:
        batch_size: images in a whole batch; the last one may be shorter.
        sampler: the order of the images in each epoch.
        rank: number of this process.
        processes: number of processes that share each batch.
    """

    def __init__(self, batch_size: int, sampler: EpochShuffle, rank: int = 0, processes: int = 1) -> None:
        self.batch_size = batch_size
        self.sampler = sampler  # Lightning looks for it here, to set its epoch
        self.rank = rank
        self.processes = processes

    def __len__(self) -> int:
        return -(-len(self.sampler) // self.batch_size)

    def __iter__(self) -> Iterator[Chosen]:
        for whole in self.sampler.remaining().split(self.batch_size):
            if self.processes == 1:
                yield Chosen(whole.numpy())
            else:
                start, end = bounds(len(whole), self.rank, self.processes)
                yield Chosen(whole[start:end].numpy(), (start, len(whole)))


class ResidentLoader:
    """Batches gathered on the device that holds the images, so that steps copy nothing from the host.

    Args:
        images: in the memory of the training device.
        batches: which images go into each.
    """

    def __init__(self, images: StoredImages, batches: Batches) -> None:
        self.images = images
        self.batches = batches
        self.sampler = batches.sampler
        self.batch_sampler = None  # Lightning looks for it wherever there is a sampler

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch | Shard]:
        return (_take(self.images, chosen) for chosen in self.batches)


def worker_loader(images: Images, batches: Batches, workers: int, pin_memory: bool, seed: int) -> DataLoader:
    """Returns a loader that fetches each batch in one piece, in worker processes.

    Args:
        images: in host memory, or fetched from a data set.
        batches: which images go into each.
        workers: number of processes; with 0, batches are fetched on demand in the main process.
        pin_memory: whether batches are put in pinned memory, for asynchronous copies to a GPU.
        seed: seed of the workers' random states, which would otherwise consume the training's.
    """
    return DataLoader(
        _WholeBatches(images),
        batch_sampler=batches,  # type: ignore[arg-type]
        num_workers=workers,
        collate_fn=_as_fetched,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        generator=torch.Generator().manual_seed(seed),
    )


class _WholeBatches(Dataset):
    """Fetches a whole batch at once, through the `__getitems__` that `DataLoader` calls if there is one."""

    def __init__(self, images: Images) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, chosen: Chosen) -> Batch | Shard:
        return _take(self.images, chosen)


def _take(images: Images, chosen: Chosen) -> Batch | Shard:
    batch = images.take(torch.from_numpy(chosen.indices))
    return batch if chosen.shard is None else Shard(batch, *chosen.shard)


def _as_fetched(batch: Any) -> Any:
    return batch
