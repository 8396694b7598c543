"""Safe loading of finished runs: only classes of this package and of PyTorch are instantiated.

A run may come from an untrusted source. Its configuration is read as plain data, every class it names is checked before
anything is instantiated, and checkpoints are loaded as tensors only.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.utils import instantiate
from omegaconf import OmegaConf

from ..errors import first_line
from .modules import few_modules
from .run import Run
from .sweep import sweep_runs
from .trust import LoadError, trusted_modules, vet
from .versions import too_new, upgraded

if TYPE_CHECKING:
    import torch

    from ..data.batch import Batch
    from ..data.datamodule import ImageDataModule
    from ..vae import VAE

__all__ = ["LoadError", "LoadedRun", "configuration", "load_run"]

log = logging.getLogger(__name__)

SPARE = 1_000_000  # numbers that a model may have and a checkpoint not, such as masks


@dataclass(frozen=True)
class LoadedRun:
    """A trained model and its run.

    Attributes:
        run: the run on disk.
        model: in evaluation mode, without gradients.
        config: its resolved configuration, in this version's format.
        trust: modules whose classes may be instantiated, besides this package and PyTorch.
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
        """The run's data, read from disk; never downloaded. A line of the log says if images have changed.

        Raises:
            LoadError: if the configuration names a class that must not be instantiated.
            DataError: if the data are missing.
        """
        vet({"data": self.config["data"]}, self.trust)
        data = _make(self.config["data"], "data", self.run)
        data.setup()
        if hasattr(data, "changed") and (changed := data.changed(self.run.digests)):
            text = "data       the %s images of %s are not those that %s was trained and tested on"
            log.warning(text, changed, data.name, self.name)
        return data

    def test_images(self, count: int) -> "Batch":
        """Returns at most `count` test images `(N, C, H, W)` and their labels, if any; the same in every call."""
        return self.data.examples("test", count)


def load_run(
    path: str | Path,
    device: "str | torch.device" = "cpu",
    trust: str | Sequence[str] = (),
    checkpoint: Literal["best", "last"] | None = None,
) -> LoadedRun:
    """Loads a finished run's model.

    Args:
        path: the run's folder.
        device: the model's device.
        trust: name or names of other modules or packages whose classes may be instantiated, such as that of an
            architecture outside this repository. Importing them executes their code.
        checkpoint: the one to load; by default the one that was tested, which is the best if the run kept it.

    Raises:
        LoadError: if the folder is not a finished run, comes from a newer version, or contains a file that is damaged
            or names a class that must not be instantiated.
    """
    import torch

    run = Run(Path(path))
    config = configuration(run)
    vet({"model": config["model"]}, trust)
    file = {"best": run.best_file, "last": run.checkpoint_file, None: run.weights_file}[checkpoint]
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    except FileNotFoundError:
        hint = "; only a callback that chooses one by a metric keeps it" if checkpoint == "best" else ""
        raise LoadError(f"{run.folder}: has no checkpoint (checkpoints/{file.name}){hint}") from None
    except Exception as error:  # a damaged file may raise anything
        raise LoadError(f"{file}: cannot be read as a checkpoint of tensors: {first_line(error)[:120]}") from error
    _check_size(config["model"], state, run)
    model = _make(config["model"], "model", run)
    try:
        model.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise LoadError(f"{file}: does not fit the model that config.yaml describes") from error
    model.eval().requires_grad_(False)
    return LoadedRun(run, model.to(device), config, trusted_modules(trust))


def configuration(run: Run) -> dict[str, Any]:
    """Returns the configuration of a finished run, in this version's format.

    Raises:
        LoadError: if the folder is none, or comes from a newer version.
    """
    if not run.folder.is_dir():
        raise LoadError(f"{run.folder}: no such folder")
    if not run.config_file.is_file():
        hint = (
            "this is a sweep; name one of the runs in it"
            if sweep_runs(run.folder)
            else "there is no run in this folder"
        )
        raise LoadError(f"{run.folder}: {hint}")
    if reason := too_new(run):
        raise LoadError(f"{run.folder}: {reason}")
    if not run.finished:
        raise LoadError(f"{run.folder}: is not a finished run: {run.failure}")
    for key in ("model", "data"):
        if not isinstance(run.config.get(key), dict):
            raise LoadError(f"{run.config_file}: has no {key}")
    return upgraded(run.config)


def _check_size(node: Mapping[str, Any], state: Any, run: Run) -> None:
    """Raises `LoadError` for a model that is much larger than the checkpoint, before its memory is taken.

    It is made without memory for that, where all its parts can be.
    """
    import torch

    try:
        with torch.device("meta"), few_modules():
            model = instantiate(OmegaConf.create(dict(node)), _convert_="all")
        saved = sum(tensor.numel() for tensor in state.values())
        described = sum(tensor.numel() for tensor in (*model.parameters(), *model.buffers()))
    except Exception:  # some parts compute when they are made; what is wrong in the files will be found again
        return
    if described > 2 * saved + SPARE:
        raise LoadError(
            f"{run.config_file}: describes a model of {described:,} numbers, and the checkpoint has {saved:,}"
        )


def _make(node: Mapping[str, Any], key: str, run: Run) -> Any:
    try:
        with few_modules():
            return instantiate(OmegaConf.create(dict(node)), _convert_="all")
    except Exception as error:
        # The constructor's error; Hydra's own message has several lines.
        raise LoadError(f"{run.config_file}: {key}: {first_line(error.__cause__ or error)}") from error
