"""What is measured again: the callbacks that measured a run, and its own data or others."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig
from pytorch_lightning import Callback

from ..callbacks import Measurements
from ..config import check, check_calls, compose, make
from ..config.messages import explain, usage_errors
from ..errors import UsageError
from ..runs.loading import LoadedRun, LoadError
from ..runs.trust import vet
from .naming import SIZES

__all__ = ["ChosenData", "measurements_of", "measuring_callbacks", "other_data", "own_data"]

log = logging.getLogger(__name__)

# What belongs to how a model sees images, not to a data set; `eval_batch_size` decides on the noise of each image.
OF_THE_MODEL = ("scale", "binarize", "eval_batch_size")
LOGGING_HOOKS = ("on_test_epoch_start", "on_test_batch_start", "on_test_batch_end", "on_test_epoch_end")


class ChosenData(NamedTuple):
    """Images to measure with, which have been read.

    Attributes:
        module: the data module.
        asked: what describes it in the file of the evaluation.
    """

    module: Any
    asked: dict[str, Any]


def own_data(run: LoadedRun, root: str | None = None) -> ChosenData:
    """Returns the run's own data, read from disk; never downloaded.

    Args:
        run: the loaded run.
        root: folder of the data sets, if not that of the run.

    Raises:
        LoadError: if the configuration names a class that must not be instantiated.
        DataError: if the data are missing.
    """
    if root:
        run.config["data"]["root"] = root
    return ChosenData(run.data, {"name": run.data.name})


@usage_errors()
def other_data(
    run: LoadedRun,
    choice: str,
    overrides: Sequence[str],
    config_dir: str | Path | None,
    root: str | None,
    option: str = "--data",
) -> ChosenData:
    """Returns other data than the run's, downloaded if necessary, and scaled as the run's model expects.

    Args:
        run: the loaded run.
        choice: of the group `data`.
        overrides: options of it, `data.KEY=VALUE`.
        config_dir: a folder with further groups; see `compose`.
        root: folder of the data sets.
        option: with which they were asked for.

    Raises:
        UsageError: if there is no such choice or option, or the images have another shape than the model's.
        DataError: if the data are missing or damaged.
    """
    roots = [f"data.root={root}"] if root else []
    config = compose(f"data={choice}", *roots, *overrides, config_dir=config_dir)
    config.run_dir = str(run.run.folder)  # as in a training; nothing is written there
    check(config)
    given = {override.lstrip("+").partition("=")[0] for override in overrides}
    for key in OF_THE_MODEL:
        if key in run.config["data"] and key in config.data and f"data.{key}" not in given:
            config.data[key] = run.config["data"][key]
    if config.data.get("image_shape") is None:
        _fit(config.data, run.image_shape)
    check_calls(config)
    shape = config.data.get("image_shape")
    if shape is not None and tuple(shape) != run.image_shape:
        raise UsageError(
            f"{option} {choice}: its images are {list(shape)} (channels, height, width), but the model of {run.name} "
            f"is built for {list(run.image_shape)}"
        )
    try:
        data = make(config.data)
    except Exception as error:  # a constructor may raise anything
        raise UsageError(f"{option} {choice}: {explain(error, overrides)}") from error
    data.prepare_data()
    data.setup()
    return ChosenData(data, {"name": data.name, "choice": choice, "options": list(overrides)})


def _fit(data: DictConfig, shape: tuple[int, ...]) -> None:
    """Asks a source that fits pictures for images of a shape, by its `size` and `channels`, unless they are set."""
    data.image_shape = list(shape)
    for option, value in [("size", list(shape[1:])), ("channels", shape[0])]:
        if option in data.source and data.source[option] is None:
            data.source[option] = value


def measurements_of(run: LoadedRun, sizes: Mapping[str, Any], cache: str | None) -> Measurements:
    """Returns the callback that measured the run, or the usual one if none did, with other sizes.

    Raises:
        UsageError: if a size is negative.
    """
    used: Mapping[str, Any] = {}
    for node in _nodes(run).values():
        if str(node["_target_"]).startswith("vae_lightning.") and str(node["_target_"]).endswith(".Measurements"):
            used = {key: value for key, value in node.items() if key in SIZES}
    try:
        # Not the run's own cache folder: a run that comes from someone else must not choose where files are written.
        return Measurements(**{**used, **sizes}, cache=cache)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from error


def measuring_callbacks(run: LoadedRun) -> list[Callback]:
    """Returns the run's callbacks from other packages that log metrics of tests, if they are trusted."""
    found = []
    for name, node in _nodes(run).items():
        if str(node["_target_"]).split(".")[0] in ("vae_lightning", "pytorch_lightning"):
            continue
        try:
            vet({f"callbacks.{name}": node}, run.trust)
            callback = make(DictConfig(dict(node)))
        except LoadError as error:
            log.info("left out   %s", error)
            continue
        except Exception as error:  # as above
            raise LoadError(f"{run.run.config_file}: callbacks.{name}: {explain(error, [])}") from error
        if any(getattr(type(callback), hook) is not getattr(Callback, hook) for hook in LOGGING_HOOKS):
            found.append(callback)
    return found


def _nodes(run: LoadedRun) -> dict[str, Mapping[str, Any]]:
    """The configurations of the run's callbacks, by name."""
    nodes = run.config.get("callbacks")
    if not isinstance(nodes, Mapping):
        return {}
    return {str(name): node for name, node in nodes.items() if isinstance(node, Mapping) and "_target_" in node}
