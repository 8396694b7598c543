"""Images that tests write as a user would have them, and what a source makes of them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from vae_lightning.data.sources import Source

RED = (255, 0, 0)
GREEN = (0, 255, 0)
BLUE = (0, 0, 255)


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (20, 16), colour: Any = None) -> None:
    """PNGs of one colour each, or of a random one."""
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(count)
    for number in range(count):
        chosen = tuple(generator.integers(0, 256, 3).tolist()) if colour is None else colour
        Image.new("RGB" if isinstance(chosen, tuple) else "L", (size[1], size[0]), chosen).save(
            folder / f"{number:03d}.png"
        )


def everything(source: Source, root: Path = Path()) -> tuple[torch.Tensor, list[int] | None]:
    """Training and test images together."""
    source.prepare(root)
    splits = [source.load(root, train) for train in (True, False)]
    labels = None if splits[0].labels is None else [n for split in splits for n in split.labels.tolist()]
    return torch.cat([split.images for split in splits]), labels


GENERATOR = np.random.default_rng(0)
PIXELS = GENERATOR.integers(0, 256, (10, 6, 5), dtype=np.uint8)
COLOUR = GENERATOR.integers(0, 256, (10, 6, 5, 3), dtype=np.uint8)
CLASSES = np.arange(10) % 3


def saved(picture: Image.Image, kind: str, **options: Any) -> bytes:
    picture.save(target := io.BytesIO(), kind, **options)
    return target.getvalue()
