"""The LightningDataModule: from a source's images to batches on the training device, scaled to [0, 1]."""

import logging
import os
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..engine.shards import Part, rand, whole_batch
from .loaders import Batches, Chosen, EpochShuffle, ResidentLoader, take
from .sources import DataError, Source, Split, data_folder

__all__ = ["ImageDataModule"]

log = logging.getLogger(__name__)


class ImageDataModule(LightningDataModule):
    """Training, validation and test batches of a source.

    A batch is a pair of images `(B, C, H, W)`, float32 in [0, 1], and labels `(B,)`, int64. Images are kept and
    moved as uint8 and scaled on the device.

    Args:
        name: what the data set is called in figures and tables.
        source: where the images come from; the contract is in `vae_lightning.data`.
        image_shape: `(C, H, W)` that the model is built for; the source's images must have it.
        batch_size: training images in a batch, on all devices together; the last, shorter batch of an epoch is kept.
        eval_batch_size: likewise in validation and testing. Beside speed and memory it determines which noise the one
            posterior sample of an image gets.
        scale: what pixel values are divided by. (The chapter divides by 256.)
        validation_size: training images held out for validation.
        validation_seed: chooses them, so that runs with different `seed` share them.
        resident: whether the images stay on the training device; `auto` keeps them there if they take at most
            half of its free memory.
        num_workers: processes that load batches where images are not resident; null for one to every four
            cores, two at most: on fewer cores they would take time from the training.
        seed: with the epoch, determines the order of the training images.
        binarize: `dynamic` draws each pixel as 0 or 1 with its grey value as the probability of 1: training images
            anew in every epoch, validation and test images once and for all. `none` keeps grey values.
        root: folder of all data sets; see `vae_lightning.data.sources.data_folder`.

    Attributes:
        steps_per_call: training batches that are handed to Lightning's loop together, as a list of so many pairs;
            with 1, a pair.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        image_shape: Sequence[int],
        batch_size: int = 128,
        eval_batch_size: int = 1000,
        scale: float = 255.0,
        validation_size: int = 0,
        validation_seed: int = 0,
        resident: bool | Literal["auto"] = "auto",
        num_workers: int | None = None,
        seed: int = 0,
        binarize: Literal["none", "dynamic"] = "none",
        root: str | None = None,
    ) -> None:
        super().__init__()
        if binarize not in ("none", "dynamic"):
            raise ValueError(f"binarize: must be none or dynamic, got {binarize!r}")
        if resident not in (True, False, "auto"):
            raise ValueError(f"resident: must be true, false or auto, got {resident!r}")
        for option, value, least in [
            ("batch_size", batch_size, 1),
            ("eval_batch_size", eval_batch_size, 1),
            ("validation_size", validation_size, 0),
            ("num_workers", num_workers or 0, 0),
        ]:
            if value < least:
                raise ValueError(f"{option}: must be a whole number of at least {least}, got {value}")
        self.name = name
        self.source = source
        self.image_shape = tuple(image_shape)
        self.class_names = tuple(source.class_names)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.scale = scale
        self.validation_size = validation_size
        self.validation_seed = validation_seed
        self.resident = resident
        self.num_workers = min(2, (os.cpu_count() or 1) // 4) if num_workers is None else num_workers
        self.seed = seed
        self.binarize = binarize
        self.root = root
        self.steps_per_call = 1
        self.splits: dict[str, Split] = {}

    def prepare_data(self) -> None:
        self.source.prepare(data_folder(self.root))

    def setup(self, stage: str | None = None) -> None:
        """Reads the images, once.

        Raises:
            DataError: when they do not have `image_shape`, or none would be left to train on.
        """
        if self.splits:
            return
        train, test = (self.source.load(data_folder(self.root), train) for train in (True, False))
        for split in (train, test):
            if split.images.shape[1:] != self.image_shape:
                found = tuple(split.images.shape[1:])
                raise DataError(f"data.image_shape={list(self.image_shape)}, but the images are {list(found)}")
        held_out = self.validation_size
        short = (len(train.images) - held_out) % self.batch_size or self.batch_size
        if self.trainer and short < self.trainer.world_size:
            raise DataError(
                f"data.batch_size={self.batch_size}: leaves a batch of {short} for {self.trainer.world_size} devices"
            )
        if held_out >= len(train.images):
            raise DataError(f"data.validation_size={held_out}: must be less than the {len(train.images)} images")
        if held_out:
            generator = torch.Generator().manual_seed(self.validation_seed)
            order = torch.randperm(len(train.images), generator=generator)
            # Sorted, so that what is left keeps the source's order.
            chosen, rest = order[:held_out].sort().values, order[held_out:].sort().values
            self.splits["val"] = Split(train.images[chosen], train.labels[chosen])
            train = Split(train.images[rest], train.labels[rest])
        self.splits |= {"train": train, "test": test}
        if self.binarize == "dynamic":
            for name in {"val", "test"} & self.splits.keys():
                self.splits[name] = self._binarized(self.splits[name])

    def _binarized(self, split: Split) -> Split:
        generator = torch.Generator().manual_seed(0)
        drawn = [(part / self.scale).bernoulli(generator=generator).byte() for part in split.images.split(10_000)]
        return Split(torch.cat(drawn), split.labels)

    def examples(self, name: Literal["train", "val", "test"], count: int) -> tuple[Tensor, Tensor]:
        """At most so many images `(N, C, H, W)`, as a model gets them, and labels of a split: always the same ones."""
        images, labels = self.splits[name]
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        chosen = order[:count].sort().values
        split = Split(images[chosen], labels[chosen])
        if self.binarize == "dynamic":
            binary = split if name != "train" else self._binarized(split)
            return binary.images.float(), binary.labels
        return split.images.float() / self.scale, split.labels

    @property
    def training_batches(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.splits["train"].images) // self.batch_size)

    def train_dataloader(self) -> ResidentLoader | DataLoader:
        sampler = EpochShuffle(len(self.splits["train"].images), self.seed)
        images_per_call = self.batch_size * self.steps_per_call
        if self.trainer:
            # Where a training goes on, the rest of the epoch in which it was interrupted.
            calls = self.trainer.fit_loop.epoch_loop.batch_progress.current.processed  # type: ignore[attr-defined]
            sampler.set_epoch(self.trainer.current_epoch)
            sampler.done = calls * images_per_call if calls * images_per_call < sampler.size else 0
        return self._loader("train", images_per_call, sampler)

    def val_dataloader(self) -> ResidentLoader | DataLoader | list[DataLoader]:
        return self._loader("val", self.eval_batch_size) if "val" in self.splits else []

    def test_dataloader(self) -> ResidentLoader | DataLoader:
        return self._loader("test", self.eval_batch_size)

    def on_after_batch_transfer(self, batch: Split | Part, dataloader_idx: int) -> Any:
        images, labels = batch[0].float() / self.scale, batch[1]
        training = self.trainer is not None and self.trainer.training
        if self.binarize == "dynamic":
            with whole_batch(batch):
                images = (rand(images) < images).float() if training else (images > 0).float()
        if isinstance(batch, Part):
            return batch._replace(images=images)
        if self.steps_per_call == 1 or not training:
            return images, labels
        return list(zip(images.split(self.batch_size), labels.split(self.batch_size), strict=True))

    def whole_test_batches(self) -> ResidentLoader | DataLoader:
        """The test batches that a single process would get."""
        return self._loader("test", self.eval_batch_size, share=False)

    def _loader(
        self, name: str, batch_size: int, sampler: EpochShuffle | None = None, share: bool = True
    ) -> ResidentLoader | DataLoader:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        split = self.splits[name]
        resident = _fits(split, device) if self.resident == "auto" else self.resident
        if name == "train":
            where = f"stay on {device}" if resident else f"are loaded by {self.num_workers} workers"
            log.info("data       %s: %d images to train on, which %s", self.name, len(split.images), where)
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer and share else (0, 1)
        batches = Batches(len(split.images), batch_size, sampler, *ranks)
        if resident:
            return ResidentLoader(Split(*(tensor.to(device) for tensor in split)), batches)
        return DataLoader(
            _BatchedDataset(split),
            batch_sampler=batches,  # type: ignore[arg-type]
            num_workers=self.num_workers,
            collate_fn=_as_fetched,
            pin_memory=device.type == "cuda",
            persistent_workers=self.num_workers > 0,
            # Seeds of the workers would else come from the random state of the training.
            generator=torch.Generator().manual_seed(self.seed),
        )


class _BatchedDataset(Dataset):
    """Fetches a whole batch by one indexing operation, which `DataLoader` uses where a data set offers it."""

    def __init__(self, split: Split) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split.images)

    def __getitems__(self, chosen: Chosen) -> Split | Part:
        return take(self.split, chosen)


def _as_fetched(batch: Any) -> Any:
    return batch


def _fits(split: Split, device: torch.device) -> bool:
    if device.type != "cuda":  # the images are in host memory already
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return sum(part.nbytes for part in split) <= free / 2
