"""The loops that are compared. Each trains the chapter's network in `Turns`.

`prepare` writes the images that all of them train on: glyphs, in the files that torchvision's KMNIST reads.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode
from torchvision.datasets import KMNIST
from torchvision.transforms import ToTensor
from turns import Turns

from vae_lightning import compose
from vae_lightning.building import build
from vae_lightning.data.batch import Batch
from vae_lightning.data.glyphs import Glyphs
from vae_lightning.data.images import StoredImages
from vae_lightning.data.loaders import Batches, EpochShuffle, ResidentLoader
from vae_lightning.data.sources import Split
from vae_lightning.engine.cuda_graphs import CapturedStep, make_capturable
from vae_lightning.engine.step_options import fused
from vae_lightning.vae import VAE

__all__ = ["arithmetic", "bare", "fast", "plain", "plain_lightning", "prepare", "profile", "project", "scaled"]


class Files:
    """A source that reads what `prepare` has written."""

    class_names = tuple(Glyphs.class_names)

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def prepare(self, root: Path) -> None:
        pass

    def load(self, root: Path, train: bool) -> Split:
        data = KMNIST(self.folder, train=train)
        return Split(data.data.unsqueeze(1), data.targets)


def prepare(folder: Path, images: int) -> None:
    """Writes `images` training and 1,000 test images in IDX format, once."""
    raw = folder / "KMNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    source = Glyphs(train_size=images, test_size=1000)
    for prefix, train in (("train", True), ("t10k", False)):
        files = [raw / f"{prefix}-{name}" for name in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        if all(file.is_file() for file in files):
            continue
        split = source.load(folder, train)
        for file, array in zip(files, (split.images[:, 0], split.labels.to(torch.uint8)), strict=True):
            header = bytes([0, 0, 8, array.dim()]) + np.array(array.shape, ">u4").tobytes()
            file.write_bytes(header + array.numpy().tobytes())


class PlainVAE(nn.Module):
    """The chapter's network as one writes it down from the book (with the sampler put right)."""

    def __init__(self, latent_dim: int, width: int = 28) -> None:
        super().__init__()
        encoder: list[nn.Module] = []
        before = 1
        for after in (width, 2 * width, 4 * width, 8 * width):
            encoder += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU()]
            before = after
        self.encoder = nn.Sequential(*encoder, nn.Flatten())
        self.mean, self.log_variance = nn.Linear(896, latent_dim), nn.Linear(896, latent_dim)
        self.project = nn.Linear(latent_dim, 8 * width)
        decoder: list[nn.Module] = []
        for before, after, stride, padding in [
            (8 * width, 4 * width, 1, 0), (4 * width, 2 * width, 2, 1), (2 * width, width, 2, 2),
        ]:  # fmt: skip
            decoder += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)]
            decoder += [nn.BatchNorm2d(after), nn.LeakyReLU()]
        self.decoder = nn.Sequential(*decoder, nn.ConvTranspose2d(width, 1, 4, 2, 1, bias=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.encoder(x)
        mean, log_variance = self.mean(features), self.log_variance(features)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        return self.decoder(self.project(z).view(len(x), -1, 1, 1)), mean, log_variance

    def loss(self, x: Tensor) -> Tensor:
        reconstruction, mean, log_variance = self(x)
        distortion = functional.binary_cross_entropy(reconstruction, x, reduction="sum")
        rate = -0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum()
        return distortion + rate


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _take(turns: Turns, step: Callable[[Any], object], batches: Iterator[Any]) -> None:
    """Times whole steps of a loop, the fetching of the batches included."""
    turns.start()
    for _ in range(turns.count):
        for _ in range(turns.steps):
            step(next(batches))
        _wait()
        turns.end(turns.steps)


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def plain(folder: str, latent_dim: int, turns: Turns) -> None:
    """a. What a user would write: torchvision's data set, a DataLoader, eager float32, Adam."""
    torch.manual_seed(0)
    device = _device()
    model = PlainVAE(latent_dim).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader(KMNIST(folder, transform=ToTensor()), batch_size=128, shuffle=True)

    def batches() -> Iterator[Tensor]:
        while True:
            for x, _ in loader:
                yield x.to(device)

    def step(x: Tensor) -> None:
        loss = model.loss(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    _take(turns, step, batches())


def plain_lightning(folder: str, latent_dim: int, turns: Turns) -> None:
    """l. The same in Lightning, as its introduction has it: logged to TensorBoard, without grids or checkpoints."""

    class Module(LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model = PlainVAE(latent_dim)

        def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
            loss = self.model.loss(batch[0])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=1e-3)

    seed_everything(0, verbose=False)
    loader = DataLoader(KMNIST(folder, transform=ToTensor()), batch_size=128, shuffle=True)
    trainer = Trainer(
        max_epochs=-1, callbacks=[_StepTimes(turns)], default_root_dir=f"{folder}/lightning",
        enable_progress_bar=False, enable_checkpointing=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), loader)


def _compose(source: dict[str, object], latent_dim: int, *overrides: str) -> DictConfig:
    config = compose("data=glyphs", f"model.latent_dim={latent_dim}", *overrides)
    with open_dict(config):
        config.data.source = source
    return config


def _files(folder: str) -> dict[str, object]:
    return {"_target_": "loops.Files", "folder": folder}


class _StepTimes(Callback):
    """Turns of Lightning's loop. The last of the callbacks, so that the others' time counts; it ends the training.

    A call may take several steps, and fewer at the end of an epoch, so that a turn may be longer.
    """

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.turns.start()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        steps = trainer.global_step - self.done
        if steps >= self.turns.steps and not trainer.should_stop:
            _wait()
            self.turns.end(steps)
            self.done = trainer.global_step
            trainer.should_stop = len(self.turns.seconds) == self.turns.count


def project(folder: str, latent_dim: int, turns: Turns, *overrides: str) -> None:
    """b. This project, its callbacks and logging included."""
    _train(_compose(_files(folder), latent_dim, *overrides), f"{folder}/run", turns)


def _train(config: DictConfig, folder: str, turns: Turns) -> None:
    with open_dict(config):
        config.run_dir = folder
        config.trainer.update({"max_epochs": -1, "enable_progress_bar": False})
    seed_everything(0, verbose=False)
    model, data, trainer, _ = build(config)
    trainer.callbacks.append(_StepTimes(turns))
    trainer.fit(model, datamodule=data)


def fast(folder: str, latent_dim: int, turns: Turns) -> None:
    """c. This project with `trainer=fast`."""
    project(folder, latent_dim, turns, "trainer=fast")


def bare(folder: str, latent_dim: int, turns: Turns) -> None:
    """d. A bare loop with everything that c uses, on CUDA the recorded graph as well, and no Lightning."""
    _take(turns, *_bare_loop(folder, latent_dim))


def _bare_loop(folder: str, latent_dim: int) -> tuple[Callable[[Any], object], Iterator[Any]]:
    config = _compose(_files(folder), latent_dim, "trainer=fast")
    torch.manual_seed(0)
    device = _device()
    model: VAE = instantiate(config.model, _convert_="all").to(device, memory_format=torch.channels_last)
    model.make_optimizer = fused(model.make_optimizer, device)
    (optimizer,) = model.configure_optimizers()
    split = Files(folder).load(Path(folder), train=True)
    sampler = EpochShuffle(len(split.images), seed=0)
    loader = ResidentLoader(StoredImages(split.images.to(device), split.labels.to(device)), Batches(128, sampler))

    def batches() -> Iterator[Batch]:
        while True:
            for batch in loader:
                yield Batch(batch.images.float() / 255, batch.labels)
            sampler.set_epoch(sampler.epoch + 1)

    def step(batch: Batch) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss = model.objective(model, batch)["loss"].mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    if device.type == "cuda":
        make_capturable(optimizer)
        return CapturedStep(step), batches()
    return step, batches()


def profile(folder: str, latent_dim: int, turns: Turns) -> list[dict[str, float | str]]:
    """Where the time of d goes: its dearest operations, each with its share of all of them and its calls a step."""
    step, batches = _bare_loop(folder, latent_dim)
    turns.start()
    for _ in range(5):
        step(next(batches))
    with torch.profiler.profile() as profiler:
        for _ in range(turns.steps):
            step(next(batches))
    on_device = "self_device_time_total" if _device().type == "cuda" else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -getattr(event, on_device))
    total = sum(getattr(event, on_device) for event in events)
    return [
        {"operation": event.key, "share": getattr(event, on_device) / total, "calls": event.count / turns.steps}
        for event in events[:10]
    ]


class Noise:
    """A source of any number of random images, drawn in memory."""

    class_names = tuple(Glyphs.class_names)

    def __init__(self, images: int) -> None:
        self.images = images

    def prepare(self, root: Path) -> None:
        pass

    def load(self, root: Path, train: bool) -> Split:
        count = self.images if train else 1000
        images = torch.empty(count, 1, 28, 28, dtype=torch.uint8)
        for part in images.split(100_000):
            part.random_(0, 256)
        return Split(images, torch.zeros(count, dtype=torch.int64))


def scaled(folder: str, images: int, batch_size: int, resident: bool, turns: Turns) -> None:
    """c on more images, in larger batches, or with batches that come from worker processes."""
    options = ["trainer=fast", "callbacks=none", "logger=none", f"data.batch_size={batch_size}"]
    source: dict[str, object] = {"_target_": "loops.Noise", "images": images}
    _train(_compose(source, 2, *options, f"data.resident={resident}"), f"{folder}/run", turns)


def arithmetic(latent_dim: int, turns: Turns) -> float:
    """e. Products of matrices in bfloat16, with as many operations as a step's network in each; returns that number."""
    device = _device()
    model = PlainVAE(latent_dim).to(device)
    with FlopCounterMode(display=False) as counter:
        reconstruction, mean, _ = model(torch.rand(128, 1, 28, 28, device=device))
        (reconstruction.sum() + mean.sum()).backward()
    operations = counter.get_total_flops()
    size = 8192 if device.type == "cuda" else 1024
    matrix = torch.randn(size, size, device=device, dtype=torch.bfloat16)
    products = 20
    turns.start()
    for _ in range(turns.count):
        for _ in range(products):
            matrix @ matrix
        _wait()
        turns.end(2 * size**3 * products / operations)
    return float(operations)
