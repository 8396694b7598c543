"""Training images that are mirrored and moved at random."""

from types import SimpleNamespace

import pytest
import torch
from written_images import COLOUR

from vae_lightning.data.augmentation import moved
from vae_lightning.data.batch import Batch
from vae_lightning.data.datamodule import ImageDataModule
from vae_lightning.data.glyphs import Glyphs

pytestmark = pytest.mark.usefixtures("cache")


def test_flips_and_shifts() -> None:
    images = torch.rand(200, 2, 5, 6)
    torch.manual_seed(0)
    flipped = moved(images, horizontal_flip=True, shift=0)
    mirrored = [torch.equal(new, old.flip(-1)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 60 < sum(mirrored) < 140
    single = torch.zeros(2000, 1, 5, 5)
    single[:, :, 2, 2] = 1
    where = moved(single, horizontal_flip=False, shift=2).flatten(1).argmax(1)
    counts = torch.bincount(where, minlength=25).float()
    assert (counts - 80).abs().max() < 45  # every place as often
    border = moved(images, False, 2)
    assert set(border[0].unique().tolist()) <= set(images[0].unique().tolist())


def test_training_images_are_moved_alike_for_any_number_of_batches_a_call() -> None:
    images = torch.from_numpy(COLOUR).movedim(-1, 1)
    found = []
    for batches in (1, 2):
        data = ImageDataModule("x", Glyphs(), batch_size=5, horizontal_flip=True, shift=2, binarize="dynamic")
        data.trainer = SimpleNamespace(training=True)
        data.batches_per_call = batches
        torch.manual_seed(0)
        calls = [data.on_after_batch_transfer(Batch(part), 0) for part in images.split(5 * batches)]
        found.append([one.images for call in calls for one in (map(data.randomised, call) if batches > 1 else [call])])
    assert [part.shape for part in found[0]] == [(5, 3, 6, 5)] * 2
    assert all(map(torch.equal, *found))
    data.trainer = SimpleNamespace(training=False)
    data.binarize = "none"
    assert torch.equal(data.on_after_batch_transfer(Batch(images), 0).images, images / 255)
