"""A finished run, loaded for use: of what its files name, only this package's and PyTorch's classes are made.

A run may come from someone else: its configuration is read as plain data, each class that it names is looked up before
anything is made, and checkpoints are loaded as tensors only.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from .run import Run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..data.datamodule import ImageDataModule
    from ..vae import VAE

__all__ = ["LoadError", "LoadedRun", "load_run"]

NODE_KEYS = {"_target_", "_partial_"}


class LoadError(ValueError):
    """A run cannot be loaded; the message says why."""


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and what is known of it.

    Attributes:
        run: where it lies.
        model: in evaluation mode, without gradients.
        config: its resolved configuration.
        trust: modules, beside this package and PyTorch's layers and optimizers, whose classes may be made.
    """

    run: Run
    model: "VAE"
    config: Mapping[str, Any]
    trust: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.run.folder.resolve().name

    @property
    def metrics(self) -> Mapping[str, Any]:
        return self.run.metrics

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(C, H, W)`."""
        return tuple(self.config["data"]["image_shape"])

    @cached_property
    def data(self) -> "ImageDataModule":
        """The run's data, read from disk; never downloaded.

        Raises:
            LoadError: if the configuration names a class that is not to be made.
            DataError: if the data are not there.
        """
        _vet(self.config["data"], "data", self.trust)
        data = _make(self.config["data"], "data", self.run)
        data.setup()
        return data

    def test_images(self, count: int) -> "tuple[Tensor, Tensor]":
        """At most so many test images `(N, C, H, W)`, as the model gets them, and classes: always the same ones."""
        return self.data.examples("test", count)


def load_run(path: str | Path, device: "str | torch.device" = "cpu", trust: Sequence[str] = ()) -> LoadedRun:
    """Loads a finished run's model.

    Args:
        path: the run's folder.
        device: where the model goes.
        trust: names of modules, or packages, whose classes may be made as well: those of an architecture kept outside
            this repository. Their code is executed when they are imported.

    Raises:
        LoadError: if the folder is no finished run, or one of its files is damaged or asks for more than it may.
    """
    import torch

    run = Run(Path(path))
    config = _config(run)
    _vet(config["model"], "model", tuple(trust))
    file = run.checkpoint_file
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError:
        raise LoadError(f"{run.folder}: there is no checkpoint in it (checkpoints/last.ckpt)") from None
    except Exception as error:  # a damaged file leads to many of them
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise LoadError(f"{file}: cannot be read as a checkpoint of tensors: {reason}") from error
    model = _make(config["model"], "model", run)
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise LoadError(f"{file}: is not of the model that config.yaml describes") from error
    model.eval().requires_grad_(False)
    return LoadedRun(run, model.to(device), config, tuple(trust))


def _config(run: Run) -> dict[str, Any]:
    if not run.folder.is_dir():
        raise LoadError(f"{run.folder}: no such folder")
    if not run.config_file.is_file():
        sweep = any(run.folder.glob("*/.hydra"))
        hint = "this is a sweep; name one of the runs in it" if sweep else "there is no run in this folder"
        raise LoadError(f"{run.folder}: {hint}")
    if not run.finished:
        raise LoadError(f"{run.folder}: is no finished run: {run.failure}")
    for key in ("model", "data"):
        if not isinstance(run.config.get(key), dict):
            raise LoadError(f"{run.config_file}: has no {key}")
    return run.config


def _make(node: Mapping[str, Any], key: str, run: Run) -> Any:
    try:
        return instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except Exception as error:
        raise LoadError(f"{run.config_file}: {key}: {_reason(error)}") from error


def _vet(node: Any, key: str, trust: tuple[str, ...]) -> None:
    """Refuses what a resolved configuration of ours does not contain, and every class that is not to be made."""
    for place, found in _walk(node, key):
        if isinstance(found, str) and "${" in found:
            raise LoadError(f"{place}={found}: interpolations are not followed in a run's configuration")
        if isinstance(found, Mapping):
            special = {str(name) for name in found if str(name).startswith("_")} - NODE_KEYS
            if special:
                raise LoadError(f"{place}: {', '.join(sorted(special))} is not allowed in a run's configuration")
            if "_target_" in found:
                _vet_target(found["_target_"], place, trust)


def _walk(node: Any, key: str) -> Iterator[tuple[str, Any]]:
    yield key, node
    if isinstance(node, Mapping):
        for name, child in node.items():
            yield from _walk(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, f"{key}[{number}]")


def _vet_target(target: Any, place: str, trust: tuple[str, ...]) -> None:
    from torch import nn
    from torch.optim import Optimizer

    def within(module: str, *packages: str) -> bool:
        return any(module == package or module.startswith(package + ".") for package in packages)

    module, _, name = str(target).rpartition(".")
    package = "vae_lightning"
    # What is not in these packages is not even imported, and nothing is reached through a module's attributes.
    if not within(module, package, "torch.nn", "torch.optim", *trust):
        hint = f"; if you trust it: --trust {module.split('.')[0]}" if module else ""
        raise LoadError(f"{place}._target_={target}: classes are taken from this package and torch.nn only{hint}")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise LoadError(f"{place}._target_={target}: cannot be loaded: {error}") from error
    if within(module, *trust):
        return
    ours = isinstance(found, type) and within(found.__module__, package)
    torchs = isinstance(found, type) and issubclass(found, nn.Module | Optimizer) and within(found.__module__, "torch")
    if not (ours or torchs):
        raise LoadError(
            f"{place}._target_={target}: is not a class of this package, nor a layer or optimizer of PyTorch"
        )


def _reason(error: Exception) -> str:
    """What the failed constructor said, in a line; Hydra's own account of it takes several."""
    lines = str(error.__cause__ or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
