"""The LightningDataModule: from a source's images to batches on the training device, scaled to [0, 1]."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from ..engine.lightning_internals import leave_ended_epoch, starts_at
from ..errors import DataError, UsageError
from .augmentation import moved
from .batch import Batch
from .drawn import Drawn
from .images import FetchedImages, StoredImages, images_of
from .loaders import Batches, EpochShuffle, ResidentLoader, SourceOrder, worker_loader
from .sizes import at_most, at_once
from .sources import Source, data_folder, refuse_identifiers

__all__ = ["ImageDataModule"]

log = logging.getLogger(__name__)

SPLITS = {"train": "training", "val": "validation", "test": "test"}
SEEN = 1000  # images, at most, whose pixels are compared with a small `scale`
EXAMPLES = 512 * 2**20  # bytes of images, at most, that are kept as numbers of 32 bits


class ImageDataModule(LightningDataModule):
    """Training, validation and test batches of a source.

    A loader yields a `Batch`, or a `Shard` of one when training in several processes. Images are stored and moved as
    uint8; `on_after_batch_transfer` scales them on the device to float32 in [0, 1].

    Args:
        name: name of the data set in figures and tables.
        source: source of the images; see `vae_lightning.data` for the contract.
        image_shape: `(C, H, W)` that the model is built for; the source's images must have it. By default, that of the
            source's images.
        batch_size: training images in a batch, on all devices together; the last, shorter batch of an epoch is kept.
        eval_batch_size: the same for validation and testing; null for 1000, or fewer where images have more than 48
            pixels a side in colour. Besides speed and memory, it affects the noise of each image's posterior sample.
        scale: divisor of pixel values, which are then at most 1. (The chapter divides by 256.)
        validation_size: number of training images held out for validation.
        validation_seed: seed of their selection, and of that of labels, so that runs with different `seed` share them.
        labelled: share of the training images whose labels are used in training, always the same ones; the others have
            the label −1. Measurements at the end of a run use all labels.
        label_dropout: probability with which the label of a training image is hidden, anew each time it is trained on.
        resident: whether the images stay on the training device. With `auto` they do if they are in memory and take at
            most half of the device's free memory; with true, those of a data set are read into memory first.
        num_workers: number of processes that load batches if images are not resident; null for one per four cores, at
            most two: with fewer cores per process they would slow down training.
        seed: determines, with the epoch, the order of the training images. With the trainer's `overfit_batches`, the
            order is the source's in every epoch, and the batches trained on are those validated.
        horizontal_flip: whether each training image is mirrored with probability one half.
        shift: number of pixels by which each training image is moved at most, up or down and to a side; pixels of the
            border are repeated.
        binarize: `dynamic` draws each pixel as 0 or 1 with its grey value as the probability of 1: training images
            anew in every epoch, validation and test images once and for all. `none` keeps grey values.
        root: folder of all data sets; see `vae_lightning.data.sources.data_folder`.

    Attributes:
        class_names: in the order of the labels, `()` without labels. For images in memory, labels that the source does
            not name are named by their number.
        splits: the images of `train`, `test` and, if some are held out, `val`; filled by `setup`.
        batches_per_call: number of training batches passed to Lightning's loop at a time. If more than 1, they come as
            a list, and each is `randomised` just before its step, so that noise is drawn in the same order.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        image_shape: Sequence[int] | None = None,
        batch_size: int = 128,
        eval_batch_size: int | None = 1000,
        scale: float = 255.0,
        validation_size: int = 0,
        validation_seed: int = 0,
        labelled: float = 1.0,
        label_dropout: float = 0.0,
        resident: bool | Literal["auto"] = "auto",
        num_workers: int | None = None,
        seed: int = 0,
        horizontal_flip: bool = False,
        shift: int = 0,
        binarize: Literal["none", "dynamic"] = "none",
        root: str | None = None,
    ) -> None:
        super().__init__()
        if binarize not in ("none", "dynamic"):
            raise ValueError(f"binarize: must be none or dynamic, got {binarize!r}")
        if resident not in (True, False, "auto"):
            raise ValueError(f"resident: must be true, false or auto, got {resident!r}")
        if not 0 < labelled <= 1:
            raise ValueError(f"labelled: must be a share greater than 0 and up to 1, got {labelled}")
        if not 0 <= label_dropout < 1:
            raise ValueError(f"label_dropout: must be a probability of at least 0 and below 1, got {label_dropout}")
        for option, value, least in [
            ("batch_size", batch_size, 1),
            ("eval_batch_size", 1 if eval_batch_size is None else eval_batch_size, 1),
            ("validation_size", validation_size, 0),
            ("num_workers", num_workers or 0, 0),
            ("shift", shift, 0),
        ]:
            if value < least:
                raise ValueError(f"{option}: must be a whole number of at least {least}, got {value}")
        known = getattr(source, "image_shape", None)
        if known is not None and image_shape is not None and tuple(known) != tuple(image_shape):
            raise ValueError(
                f"image_shape: must be {list(known)}, as the images of {name} are, got {list(image_shape)}"
            )
        self.name = name
        self.source = source
        self._image_shape = image_shape or known
        self.class_names = tuple(getattr(source, "class_names", ()))
        self.batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self.scale = scale
        self.validation_size = validation_size
        self.validation_seed = validation_seed
        self.labelled = labelled
        self.label_dropout = label_dropout
        self.resident = resident
        self.num_workers = min(2, (os.cpu_count() or 1) // 4) if num_workers is None else num_workers
        self.seed = seed
        self.horizontal_flip = horizontal_flip
        self.shift = shift
        self.binarize = binarize
        self.root = root
        self.batches_per_call = 1
        self.splits: dict[str, StoredImages | FetchedImages] = {}

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(C, H, W)`; if neither the configuration nor the source says it, the images are read to find out."""
        if self._image_shape is None:
            self.prepare_data()
            self._image_shape = images_of(self.source.load(data_folder(self.root), train=False)).shape
        return tuple(self._image_shape)

    @property
    def eval_batch_size(self) -> int:
        """Validation or test images in a batch."""
        return self._eval_batch_size or at_once(self.image_shape)

    def prepare_data(self) -> None:
        if not self.splits:
            self.source.prepare(data_folder(self.root))

    def setup(self, stage: str | None = None) -> None:
        """Reads the images, once.

        Raises:
            DataError: for no images to train or to test on, images of another shape than `image_shape`, or labels that
                do not number classes.
            UsageError: for a `scale` below the value of a pixel; if no images are left to train on, or a batch has
                fewer images than there are devices.
        """
        if self.splits:
            return
        train, test = self._load(train=True), self._load(train=False)
        self._check(len(train), len(test))
        self.class_names = tuple(getattr(self.source, "class_names", ()))  # some sources know them only now
        self.class_names = self._names(train, test)
        if self.validation_size:
            generator = torch.Generator().manual_seed(self.validation_seed)
            order = torch.randperm(len(train), generator=generator)
            # Sorted, so that both parts keep the source's order.
            chosen, rest = (part.sort().values for part in order.tensor_split([self.validation_size]))
            self.splits["val"], train = train.subset(chosen), train.subset(rest)
        if self._overfits:
            self.splits["val"] = train
        self.splits |= {"train": train, "test": test}
        if self.binarize == "dynamic":
            for name in {"val", "test"} & self.splits.keys():
                self.splits[name] = self.splits[name].binarized(self.scale)

    @property
    def _overfits(self) -> bool:
        return self.trainer is not None and bool(self.trainer.overfit_batches)  # type: ignore[attr-defined]

    def _load(self, train: bool) -> StoredImages | FetchedImages:
        images = images_of(self.source.load(data_folder(self.root), train))
        if not len(images):
            raise DataError(f"data: {self.name} has no images to {'train' if train else 'test'} on")
        if images.shape != self.image_shape:
            raise DataError(f"data.image_shape={list(self.image_shape)}, but the images are {list(images.shape)}")
        if self.scale < 255:  # as for images of 0 and 1
            most = int(images.take(torch.arange(min(len(images), SEEN))).images.max())
            if most > self.scale:
                raise UsageError(
                    f"data.scale={self.scale:g}: must be at least {most}, the value of a pixel, which it divides"
                )
        if self.resident is True and isinstance(images, FetchedImages):
            return images.stored()
        return images

    def _check(self, size: int, test_size: int) -> None:
        """Raises `UsageError` if no training images would be left, or a process would get no images of a batch."""
        if self.validation_size >= size:
            raise UsageError(f"data.validation_size={self.validation_size}: must be less than the {size} images")
        processes = self.trainer.world_size if self.trainer else 1
        for option, batch_size, images in [
            ("batch_size", self.batch_size, size - self.validation_size),
            ("eval_batch_size", self.eval_batch_size, self.validation_size),
            ("eval_batch_size", self.eval_batch_size, test_size),
        ]:
            shortest = images % batch_size or batch_size
            if shortest < processes:
                raise UsageError(f"data.{option}={batch_size}: leaves a batch of {shortest} for {processes} devices")

    def _names(self, *splits: StoredImages | FetchedImages) -> tuple[str, ...]:
        if not any(images.labelled for images in splits):
            return ()
        labels = [images.labels for images in splits if isinstance(images, StoredImages) and len(images)]
        classes = max((int(found.max()) + 1 for found in labels if found is not None), default=0)
        if classes > len(self.class_names):
            refuse_identifiers(classes - 1, sum(map(len, splits)))
        return self.class_names + tuple(str(label) for label in range(len(self.class_names), classes))

    def examples(self, name: Literal["train", "val", "test"], count: int) -> Batch:
        """Returns the same images of a split in every call, as a model receives them, on the CPU.

        Args:
            name: name of the split.
            count: maximum number of images; there are fewer where so many would take more than 512 MiB.

        Returns:
            Images `(N, C, H, W)`, float32 in [0, 1], and their labels `(N,)`, or None.
        """
        return self.numbered(name, self.chosen(name, min(count, at_most(EXAMPLES, self.image_shape))))

    def chosen(self, name: Literal["train", "val", "test"], count: int) -> Tensor:
        """Returns the numbers `(N,)`, rising, of at most `count` images of a split; the same in every call."""
        order = torch.randperm(len(self.splits[name]), generator=torch.Generator().manual_seed(0))
        return order[:count].sort().values

    def numbered(self, name: Literal["train", "val", "test"], numbers: Tensor) -> Batch:
        """Returns the images of a split with these numbers `(N,)`, as `examples` does."""
        chosen = self.splits[name].subset(numbers)
        if self.binarize == "dynamic" and name == "train":
            chosen = chosen.binarized(self.scale)
        found = chosen.take(torch.arange(len(chosen)))
        scale = self.scale if self.binarize == "none" else 1.0
        return found._replace(images=found.images.float().div_(scale))

    def factors(self, name: Literal["train", "val", "test"], numbers: Tensor) -> Tensor | None:
        """Returns the factors of variation `(N, K)` of the images with these numbers; None where none are known."""
        return self.splits[name].subset(numbers).factors

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names of the factors of variation, by default their numbers; empty where none are known."""
        factors = self.splits["test"].factors
        if factors is None:
            return ()
        named = tuple(getattr(self.source, "factor_names", ()))
        return named or tuple(str(number) for number in range(1, factors.shape[1] + 1))

    @property
    def categorical_factors(self) -> tuple[str, ...]:
        """Names of the factors of variation whose values have no order; the others are numbers."""
        return tuple(getattr(self.source, "categorical_factors", ()))

    def digests(self) -> dict[str, str]:
        """Returns a digest of the images and labels of each split that is in memory, by its name."""
        return {name: images.digest() for name, images in self.splits.items() if isinstance(images, StoredImages)}

    def changed(self, digests: Mapping[str, Any]) -> str:
        """Returns the splits that have other digests now, such as `training and test`; empty if there are none.

        Images that are drawn have not changed if their options have not; processors may round them differently.
        """
        now = {} if isinstance(self.source, Drawn) or not digests else self.digests()
        return " and ".join(
            SPLITS[name] for name in SPLITS if name in now and now[name] != digests.get(name, now[name])
        )

    @property
    def training_batches(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self.splits["train"]) // self.batch_size)

    def train_dataloader(self) -> ResidentLoader | DataLoader:
        size = len(self.splits["train"])
        images_per_call = self.batch_size * self.batches_per_call
        sampler = SourceOrder(size) if self._overfits else EpochShuffle(size, self.seed)
        if self.trainer:
            # A resumed run starts with the rest of the interrupted epoch.
            leave_ended_epoch(self.trainer)
            epoch, calls = starts_at(self.trainer)
            sampler.set_epoch(epoch)
            sampler.done = calls * images_per_call
        return self._loader("train", images_per_call, sampler)

    def val_dataloader(self) -> ResidentLoader | DataLoader | list[DataLoader]:
        batch_size = self.batch_size if self._overfits else self.eval_batch_size
        return self._loader("val", batch_size) if "val" in self.splits else []

    def test_dataloader(self) -> ResidentLoader | DataLoader:
        return self._loader("test", self.eval_batch_size)

    def whole_test_batches(self) -> ResidentLoader | DataLoader:
        """Returns a loader of the test batches, not split into shards."""
        return self._loader("test", self.eval_batch_size, share=False)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch | list[Batch]:
        """Scales the images of a batch and randomises it; splits training batches that were passed as one."""
        training = self.trainer is not None and self.trainer.training
        scaled = batch.images.float() / self.scale
        if self.batches_per_call == 1 or not training:
            return self.randomised(Batch(scaled, batch.labels), training)
        images = scaled.split(self.batch_size)
        labels = [None] * len(images) if batch.labels is None else batch.labels.split(self.batch_size)
        return [Batch(*pair) for pair in zip(images, labels, strict=True)]

    def randomised(self, batch: Batch, training: bool = True) -> Batch:
        """Returns a batch with its images moved and binarised, and with some of its labels hidden.

        Outside training nothing is drawn: images are binarised at 0.
        """
        images = batch.images
        if training and (self.horizontal_flip or self.shift):
            images = moved(images, self.horizontal_flip, self.shift)
        if self.binarize == "dynamic":
            images = (torch.rand_like(images) < images if training else images > 0).float()
        labels = batch.labels
        if training and self.label_dropout and labels is not None:
            labels = labels.where(torch.rand(len(labels), device=labels.device) >= self.label_dropout, -1)
        return Batch(images, labels)

    def _loader(
        self, name: str, batch_size: int, sampler: EpochShuffle | None = None, share: bool = True
    ) -> ResidentLoader | DataLoader:
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        images = self._with_labels_left() if name == "train" else self.splits[name]
        ranks = (self.trainer.global_rank, self.trainer.world_size) if self.trainer and share else (0, 1)
        batches = Batches(batch_size, sampler or SourceOrder(len(images)), *ranks)
        if isinstance(images, StoredImages) and self._stay(images, device):
            loader: ResidentLoader | DataLoader = ResidentLoader(images.to(device), batches)
            where = f"stay on {device}"
        else:
            loader = worker_loader(images, batches, self.num_workers, device.type == "cuda", self.seed)
            where = f"are loaded by {self.num_workers} workers"
        if name == "train":
            log.info("data       %s: %d images to train on, which %s", self.name, len(images), where)
        return loader

    def _with_labels_left(self) -> StoredImages | FetchedImages:
        """The training images with the labels that are used in training."""
        images = self.splits["train"]
        if self.labelled == 1 or not images.labelled:
            return images
        # Chosen by number, so that all epochs, processes and runs that share training images share their labels.
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(self.validation_seed))
        return images.with_labels_of(order[: max(1, round(self.labelled * len(images)))])

    def _stay(self, images: StoredImages, device: torch.device) -> bool:
        if self.resident != "auto":
            return self.resident
        if device.type != "cuda":  # the images are in host memory already
            return True
        free, _ = torch.cuda.mem_get_info(device)
        return images.nbytes <= free / 2
