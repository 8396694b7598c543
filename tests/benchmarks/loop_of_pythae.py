"""pythae 0.1.2's trainer in `Turns`, in an environment of its own; see `against_pythae.py` for what that needs."""

import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
import train_pythae
from pythae import models
from pythae.data.datasets import BaseDataset
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from pythae.trainers.training_callbacks import TrainingCallback
from turns import Turns

__all__ = ["loop"]


class _StepTimes(TrainingCallback):
    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.done = 0

    def on_train_begin(self, training_config, **_) -> None:
        self.turns.start()

    def on_train_step_end(self, training_config, **_) -> None:
        self.done += 1
        if self.done % self.turns.steps == 0:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.turns.end(self.turns.steps)
            if len(self.turns.seconds) == self.turns.count:
                raise _Stop


class _Stop(Exception):  # noqa: N818
    pass


def loop(folder: str, latent_dim: int, turns: Turns) -> None:
    """p. The chapter's network on images in memory."""
    train_pythae.LATENT = latent_dim
    raw = np.fromfile(Path(folder, "KMNIST", "raw", "train-images-idx3-ubyte"), np.uint8, offset=16)
    images = torch.from_numpy(raw).view(-1, 1, 28, 28).float() / 255
    config = models.VAEConfig(**train_pythae.SHAPE | {"latent_dim": latent_dim})
    model = models.VAE(config, encoder=train_pythae.Encoder(), decoder=train_pythae.Decoder())
    settings = BaseTrainerConfig(
        num_epochs=10_000, per_device_train_batch_size=train_pythae.BATCH, learning_rate=train_pythae.RATE,
        output_dir=tempfile.mkdtemp(dir=folder), train_dataloader_num_workers=0,
    )  # fmt: skip
    data = BaseDataset(images, torch.zeros(len(images)))
    with suppress(_Stop):
        BaseTrainer(model, data, training_config=settings, callbacks=[_StepTimes(turns)]).train()
