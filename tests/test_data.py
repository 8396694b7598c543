"""Sources, the built-in data set and the batches that reach the model."""

import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from pytorch_lightning import LightningModule, Trainer
from shared import TINY, compose_config
from torch import Tensor, nn
from torch.utils.data import Dataset, IterableDataset

from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.glyphs import Glyphs
from vae_lightning.data.loaders import EpochShuffle, ResidentLoader
from vae_lightning.data.sources import DataError, Split, TorchvisionMNIST
from vae_lightning.errors import UsageError


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    shuffle = EpochShuffle(50, seed=3)
    first = shuffle.order()
    torch.rand(7)
    assert torch.equal(shuffle.order(), first)
    assert sorted(first.tolist()) == list(range(50))
    shuffle.set_epoch(1)
    assert not torch.equal(shuffle.order(), first)
    orders = {tuple(EpochShuffle(50, seed).order().tolist()) for seed in range(20)}
    assert len(orders) == 20


def make(**options: object) -> ImageDataModule:
    data = instantiate(compose_config(*TINY, *(f"data.{key}={value}" for key, value in options.items())).data)
    data.prepare_data()
    data.setup()
    return data


def test_resident_and_loaded_batches_are_the_same() -> None:
    resident, loaded = make(resident=True), make(resident=False, num_workers=1)
    for epoch in (0, 1):
        one, other = resident.train_dataloader(), loaded.train_dataloader()
        assert isinstance(one, ResidentLoader)
        assert not isinstance(other, ResidentLoader)
        one.sampler.set_epoch(epoch)
        other.batch_sampler.sampler.set_epoch(epoch)
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a[0], b[0])
            assert torch.equal(a[1], b[1])
    for a, b in zip(resident.test_dataloader(), loaded.test_dataloader(), strict=True):
        assert torch.equal(a[0], b[0])


def test_an_epoch_has_every_image_once_and_keeps_the_short_batch() -> None:
    data = make(batch_size=36)
    batches = [data.on_after_batch_transfer(batch, 0) for batch in data.train_dataloader()]
    assert [len(images) for images, _ in batches] == [36, 36, 24]
    assert len(data.train_dataloader()) == 3
    images = torch.cat([images for images, _ in batches])
    assert images.dtype == torch.float32
    assert (images.min(), images.max() <= 1) == (0, True)
    source = data.splits["train"].images.float() / 255
    assert sorted(images.sum((1, 2, 3)).tolist()) == sorted(source.sum((1, 2, 3)).tolist())


def test_pixels_can_be_scaled_as_in_the_chapter() -> None:
    data = make(scale=256)
    batch = Batch(torch.full((1, 1, 28, 28), 128, dtype=torch.uint8), torch.zeros(1))
    assert data.on_after_batch_transfer(batch, 0).images.max() == 0.5
    with pytest.raises(UsageError, match=r"data.scale=1: must be at least 255, the value of a pixel"):
        make(scale=1)
    binary = ImageDataModule("binary", Stored(torch.ones(4, 1, 28, 28, dtype=torch.uint8), torch.zeros(4)), scale=1)
    binary.setup()


def test_the_validation_split_has_a_seed_of_its_own() -> None:
    whole = make().splits["train"]
    one, two = make(validation_size=20), make(validation_size=20, seed=9)
    other = make(validation_size=20, validation_seed=1)
    assert (len(one.splits["val"]), len(one.splits["train"])) == (20, 76)
    assert torch.equal(one.splits["val"].images, two.splits["val"].images)
    assert not torch.equal(one.splits["val"].images, other.splits["val"].images)
    together = torch.cat([one.splits["val"].images, one.splits["train"].images])
    assert sorted(together.sum((1, 2, 3)).tolist()) == sorted(whole.images.sum((1, 2, 3)).tolist())
    assert make().val_dataloader() == []


def test_images_of_another_shape_are_refused() -> None:
    message = "image_shape: must be [1, 28, 28], as the images of {} are, got [1, 32, 32]"
    for name, source in (("kmnist", TorchvisionMNIST("KMNIST")), ("glyphs", Glyphs())):
        # Before the model is built: nothing has been read yet.
        with pytest.raises(ValueError, match=re.escape(message.format(name))):
            ImageDataModule(name, source, (1, 32, 32))
    assert ImageDataModule("glyphs", Glyphs(image_size=32), (1, 32, 32)).image_shape == (1, 32, 32)
    data = ImageDataModule("plain", Stored(*images_and_labels(8)), (1, 32, 32))
    with pytest.raises(DataError, match=r"data.image_shape=\[1, 32, 32\], but the images are \[1, 8, 8\]"):
        data.setup()


def test_a_validation_split_must_leave_images_to_train_on() -> None:
    with pytest.raises(UsageError, match="data.validation_size=96: must be less"):
        make(validation_size=96)


def test_an_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=f"(?s){tmp_path / 'file'}.*tried to write") as caught:
        TorchvisionMNIST("KMNIST").prepare(tmp_path / "file")
    assert "data.root=FOLDER" in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def images_and_labels(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    return images, torch.arange(count) % 3


class Stored:
    """A source in memory, the same images for training and testing."""

    class_names: ClassVar = ("a", "b", "c")

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self.images, self.labels = images, labels

    def prepare(self, root: Path) -> None:
        pass

    def load(self, root: Path, train: bool) -> Any:
        return Split(self.images, self.labels)


class Items(Dataset):
    """Gives an item when it is asked for, and keeps count of how many were."""

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self.images, self.labels = images, labels
        self.given = 0

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        self.given += 1
        return self.images[index] if self.labels is None else (self.images[index], self.labels[index].item())


class Fetched(Stored):
    """The same as a data set."""

    def load(self, root: Path, train: bool) -> Any:
        return Items(self.images, self.labels)


def module(source: Any, **options: Any) -> ImageDataModule:
    options = {"image_shape": (1, 8, 8), "batch_size": 8, "eval_batch_size": 9, "num_workers": 0} | options
    data = ImageDataModule("own", source, **options)
    data.setup()
    return data


def batches(data: ImageDataModule) -> list[Batch]:
    """All batches of an epoch's training and of both evaluations, as the model gets them."""
    loaders = (data.train_dataloader(), data.val_dataloader(), data.test_dataloader())
    return [data.on_after_batch_transfer(batch, 0) for loader in loaders for batch in loader]


def assert_equal(one: Batch, other: Batch) -> None:
    assert torch.equal(one.images, other.images)
    assert one.labels is other.labels if one.labels is None else torch.equal(one.labels, other.labels)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_data_set_gives_the_batches_that_a_tensor_gives(workers: int, labelled: bool) -> None:
    images, labels = images_and_labels(30)
    labels = labels if labelled else None
    stored, fetched = (module(kind(images, labels), validation_size=10) for kind in (Stored, Fetched))
    fetched.num_workers = workers
    pairs = list(zip(batches(stored), batches(fetched), strict=True))
    assert [len(one.images) for one, _ in pairs] == [8, 8, 4, 9, 1, 9, 9, 9, 3]
    assert all(isinstance(batch, Batch) for pair in pairs for batch in pair)
    for one, other in pairs:
        assert_equal(one, other)
    for name in ("train", "val", "test"):
        assert_equal(stored.examples(name, 7), fetched.examples(name, 7))
    assert stored.class_names == fetched.class_names == (("a", "b", "c") if labelled else ())
    assert (stored.examples("test", 3).labels is None) == (not labelled)


def test_a_data_set_is_read_batch_by_batch() -> None:
    source = Fetched(*images_and_labels(500))
    data = module(source, validation_size=100, binarize="dynamic")
    items = data.splits["train"].dataset
    assert items.given <= 1  # the first, for its shape
    data.examples("train", 6)
    assert items.given <= 7
    next(iter(data.train_dataloader()))
    assert items.given <= 15
    resident = module(source, resident=True)
    assert isinstance(resident.train_dataloader(), ResidentLoader)
    for one, other in zip(batches(module(source)), batches(resident), strict=True):
        assert_equal(one, other)


def test_binary_test_images_of_a_data_set_do_not_depend_on_the_batch() -> None:
    images, labels = images_and_labels(400)
    options = {"binarize": "dynamic", "validation_size": 40}
    one, other = (module(Fetched(images, labels), eval_batch_size=size, **options) for size in (7, 400))
    for name in ("val", "test"):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(3))
        alone = torch.cat([one.splits[name].take(part).images for part in order.split(3)])
        assert torch.equal(alone, other.splits[name].take(order).images)
    whole, _ = other.splits["test"].take(torch.arange(400))
    assert set(whole.unique().tolist()) == {0, 1}
    # As often one as the grey value says, and another noise for every image.
    assert whole.double().mean().item() == pytest.approx((images / 255).mean().item(), abs=4 * 0.5 / 25_600**0.5)
    grey = module(Fetched(images[:1].expand(400, -1, -1, -1), labels), binarize="dynamic").splits["test"]
    shares = grey.take(torch.arange(400)).images.float().mean(0)
    assert (shares - images[0] / 255).abs().max() < 5 * 0.5 / 20
    (batch,) = other.test_dataloader()
    assert torch.equal(other.on_after_batch_transfer(batch, 0).images, whole.float())
    assert set(one.examples("train", 9).images.unique().tolist()) == {0, 1}
    assert_equal(one.examples("train", 9), other.examples("train", 9))


def test_a_data_set_may_fetch_many_items_at_once() -> None:
    class Many(Items):
        def __getitem__(self, index: int) -> Any:
            raise AssertionError

        def __getitems__(self, indices: list[int]) -> Any:
            return list(zip(self.images[indices], self.labels[indices], strict=True))

    class Source(Stored):
        def load(self, root: Path, train: bool) -> Any:
            return Many(self.images, self.labels)

    source = images_and_labels(20)
    for one, other in zip(batches(module(Stored(*source))), batches(module(Source(*source))), strict=True):
        assert_equal(one, other)


class Endless(IterableDataset):
    def __iter__(self) -> Iterator[Tensor]:
        return itertools.repeat(torch.zeros(1, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (
            [torch.zeros(1, 8, 8)],
            r"item 0 of list: must be a uint8 image \(C, H, W\), got float32 of shape \[1, 8, 8\]",
        ),
        ([torch.zeros(8, 8, dtype=torch.uint8)], r"got uint8 of shape \[8, 8\]"),
        ([], "list: has no items"),
        (Endless(), "Endless: must be a map-style data set, with __len__ and __getitem__"),
        (None, "NoneType: must be a map-style data set"),
        (["picture.png"], "items: must be uint8 tensors .* got str"),
        ([(images_and_labels(1)[0][0], "cat")], "pairs of one and its label, got Tensor and str"),
        ([*images_and_labels(3)[0], torch.zeros(1, 4, 4, dtype=torch.uint8)], r"item 3 .* of shape \[1, 8, 8\], got"),
        ([(image, 0 if i else -1) for i, image in enumerate(images_and_labels(3)[0])], "item 0 .* from 0, got -1"),
        ([(image, 0 if i < 2 else None) for i, image in enumerate(images_and_labels(3)[0])], "item 2 .* got None"),
    ],
)
def test_items_that_break_the_contract_are_named(items: Any, message: str) -> None:
    class Source(Stored):
        def load(self, root: Path, train: bool) -> Any:
            return items

    with pytest.raises(DataError, match=message):
        batches(module(Source(*images_and_labels(1))))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(3, 1, 8, 8), None, "images: must be uint8"),
        (images_and_labels(3)[0].numpy(), None, "images: must be a tensor, got ndarray; torch.as_tensor makes one"),
        (images_and_labels(3)[0], np.zeros(3), "labels: must be a tensor, got ndarray; torch.as_tensor makes one"),
        (images_and_labels(3)[0][:0], None, "data: .* has no images to train on"),
        (images_and_labels(3)[0], torch.zeros(2), "labels: must be one for each of the 3 images"),
        (images_and_labels(3)[0], torch.tensor([0, -1, 2]), "labels: must be whole numbers from 0, got -1"),
    ],
)
def test_tensors_that_break_the_contract_are_named(images: Tensor, labels: Tensor | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        module(Stored(images, labels))


def test_classes_without_a_name_are_called_by_their_number() -> None:
    images, _ = images_and_labels(6)
    assert module(Stored(images, torch.tensor([0, 1, 2, 4, 0, 0]))).class_names == ("a", "b", "c", "3", "4")


class Recorder(LightningModule):
    """Keeps the training batches of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.epochs: dict[int, list[Tensor]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        self.epochs.setdefault(self.current_epoch, []).append(batch.images.clone())
        return self.weight**2

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        assert isinstance(batch, Batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.mark.parametrize("kind", [Stored, Fetched])
@pytest.mark.parametrize("overfit", [2, 0])
def test_overfitting_takes_the_same_batches_in_every_epoch(tmp_path: Path, kind: type[Stored], overfit: int) -> None:
    images, labels = images_and_labels(30)
    data = ImageDataModule("own", kind(images, labels), (1, 8, 8), 8, validation_size=6, num_workers=0)
    model = Recorder()
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=3,
        overfit_batches=overfit,
        default_root_dir=tmp_path,
        log_every_n_steps=1,
        **quiet,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "You requested to overfit")  # Lightning's, where it finds shuffled batches
        trainer.fit(model, datamodule=data)
    epochs = [torch.cat(found) for found in model.epochs.values()]
    assert len(epochs) == 3
    expected = data.splits["train"].take(torch.arange(16)).images / 255
    assert [torch.equal(epoch[:16], expected) for epoch in epochs] == [bool(overfit)] * 3
    assert torch.equal(epochs[0], epochs[1]) == bool(overfit)


def test_several_batches_a_call_are_those_of_single_calls() -> None:
    class Training:
        training = True
        overfit_batches = 0

    for labels in (images_and_labels(30)[1], None):
        source = Stored(images_and_labels(30)[0], labels)
        single, several = module(source), module(source)
        one_by_one = [single.on_after_batch_transfer(batch, 0) for batch in single.train_dataloader()]
        several.batches_per_call = 3
        calls = list(several.train_dataloader())
        several.trainer = Training()
        lists = [several.on_after_batch_transfer(batch, 0) for batch in calls]
        assert [len(found) for found in lists] == [3, 1]
        for one, other in zip(
            one_by_one, [several.randomised(batch) for found in lists for batch in found], strict=True
        ):
            assert_equal(one, other)
