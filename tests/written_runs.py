"""Runs written to disk without a training, for tests of what reads them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from vae_lightning.runs import Run

CONFIG: dict[str, Any] = {
    "study": "written",
    "seed": 0,
    "resume": False,
    "data": {"_target_": "vae_lightning.data.datamodule.ImageDataModule", "name": "glyphs", "batch_size": 32,
             "source": {"_target_": "vae_lightning.data.glyphs.Glyphs", "train_size": 96}, "seed": 0, "root": None},
    "model": {
        "_target_": "vae_lightning.vae.VAE",
        "latent_dim": 2,
        "objective": {"_target_": "vae_lightning.objectives.ELBO"},
        "encoder": {"_target_": "vae_lightning.architectures.conv.ConvEncoder", "latent_dim": 2, "width": 4},
        "optimizer": {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.001},
    },
    "trainer": {"_target_": "pytorch_lightning.Trainer", "max_epochs": 2, "enable_progress_bar": True},
    "engine": {"steps_per_call": 1},
    "callbacks": {"figures": {"_target_": "vae_lightning.callbacks.FinalFigures", "samples": 100}},
    "logger": {"tensorboard": {"_target_": "pytorch_lightning.loggers.TensorBoardLogger", "save_dir": "."}},
    "run_dir": ".",
    "choices": {"data": "glyphs", "model": "conv", "model/objective": "elbo", "trainer": "default"},
}  # fmt: skip


def configuration(**options: Any) -> dict[str, Any]:
    """`CONFIG` with other values: `model__latent_dim=3`, `choices={"model": "mlp"}`."""
    config = copy.deepcopy(CONFIG)
    config["choices"] |= options.pop("choices", {})
    for key, value in options.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        if value is ...:
            del node[last]
        else:
            node[last] = value
    return config


def write_run(folder: Path, metrics: dict[str, float] | None = None, **options: Any) -> Run:
    """A finished run without figures."""
    run = Run(folder)
    folder.mkdir(parents=True)
    config = configuration(**options)
    run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    latent_dim = config["model"]["latent_dim"]
    run.metrics_file.write_text(
        json.dumps({"test/elbo": -100.0 - latent_dim, "test/loss": 102.0, "test/distortion": 90.0, "test/rate": 12.0,
                    "latent_dim": latent_dim, "seed": config["seed"], "epochs": 2, **(metrics or {})})
    )  # fmt: skip
    return run


def write_curves(run: Run, **terms: list[float]) -> None:
    run.figures.mkdir(exist_ok=True)
    arrays = {name: np.array(values) for name, values in terms.items()}
    np.savez(run.curves_file, **arrays, **{f"{name}_steps": np.arange(len(v)) + 1 for name, v in terms.items()})


def write_figures(run: Run, labelled: bool = True, **arrays: Any) -> None:
    """The arrays of the final figures and of the explorer: 12 codes in two dimensions, images of 4 × 4 pixels."""
    run.figures.mkdir(exist_ok=True)
    images = np.arange(12 * 16, dtype=np.uint8).reshape(12, 1, 4, 4)
    codes = np.random.default_rng(0).normal(size=(12, 2)).astype(np.float32)
    both = {"labels": np.arange(12) % 3, "class_names": np.array(["o", "ki", "su"])} if labelled else {}
    figures = {"points": codes, "explained": np.array([0.5, 0.2]), "rates": np.ones(2), "originals": images}
    np.savez(run.arrays_file, reconstructions=images, samples=images, **(figures | both | arrays))
    explorer = {
        "codes": codes, "images": images, "explained": np.array([0.5, 0.2]), "box": np.array([[-3.0, -3], [3, 3]]),
        "lattice": np.zeros((3, 3, 1, 4, 4), np.uint8), "dimensions": np.array([0, 1]),
        "values": np.array([-1.0, 0, 1]),
        "slides": np.zeros((2, 3, 1, 4, 4), np.uint8),
    }  # fmt: skip
    np.savez(run.explorer_file, **(explorer | both | arrays))


def write_grid(run: Run, step: int) -> None:
    file = run.grid_file(step)
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(file)


def write_checkpoint(file: Path, state: dict[str, torch.Tensor]) -> None:
    file.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": state, "global_step": 6}, file)
