"""The root of the configuration: a dataclass, so that misspelt keys and values of the wrong type are errors.

The nodes below the root are open, because they are constructor calls (`_target_`) whose options are defined by the
classes. `check` validates the configuration itself, without importing anything; `check_calls` compares every call with
its class's signature before any object is built.
"""

import inspect
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from ..errors import UsageError
from ..runs import run_name
from .messages import leaves, unknown_option
from .signatures import parameters

__all__ = ["Config", "check", "check_calls", "refuse_monitors", "register"]


@dataclass
class Engine:
    """Options for executing training steps, set by `trainer=fast`; see `vae_lightning.engine.step_options.Options`."""

    steps_per_call: int = 1
    cuda_graph: bool = False
    channels_last: bool = False
    compile: bool = False


@dataclass
class Config:
    """The options of a run.

    Attributes:
        study: name of the run or sweep, used in folder names and titles.
        kind: what kind of model it is; the report groups runs by it and marks the best of each.
        seed: seed of initialisation, shuffling and noise.
        resume: whether to resume the run or sweep in the output folder.
        data: the `LightningDataModule`.
        model: the `LightningModule`.
        trainer: Lightning's trainer.
        callbacks: Lightning callbacks, by name.
        logger: Lightning loggers, by name.
        engine: options for executing training steps.
        run_dir: the run's folder, set when the run starts.
        choices: the choice of each group, set when the configuration is composed.
    """

    study: str = MISSING
    kind: str = ""
    seed: int = MISSING
    resume: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    engine: Engine = field(default_factory=Engine)
    run_dir: str = MISSING
    choices: dict[str, str] = field(default_factory=dict)


def register() -> None:
    """Registers the schema and the resolvers with Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("file_name", lambda path: Path(str(path)).expanduser().resolve().stem, replace=True)
    OmegaConf.register_new_resolver(
        "folder_name", lambda path: Path(str(path)).expanduser().resolve().name, replace=True
    )
    OmegaConf.register_new_resolver("raw_shape", _raw_shape, replace=True)
    OmegaConf.register_new_resolver("more", _more, replace=True)
    OmegaConf.register_new_resolver("share_of_cores", _share_of_cores, replace=True)
    # Cached: like Hydra's `now`, the same for all jobs of a sweep, but different for sweeps of the same second.
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def _raw_shape(image_shape: ListConfig | None, likelihood: DictConfig) -> ListConfig | None:
    """The shape of a decoder's output: that of the images, with as many channels as the likelihood has parameters."""
    if image_shape is None:
        return None
    import torch

    try:
        with torch.random.fork_rng(devices=[]):  # initialisation must not depend on how often this is asked for
            channels = instantiate(likelihood, _convert_="all").raw_channels(image_shape[0])
    except Exception:  # which is reported when the model's own likelihood is made
        return image_shape
    return OmegaConf.create([channels, *image_shape[1:]])


def _more(size: int | ListConfig | None, added: int) -> int | ListConfig | None:
    """A dimension with some more, or the shape of images with more channels."""
    if size is None or isinstance(size, int):
        return size and size + added
    return OmegaConf.create([size[0] + added, *size[1:]])


def _share_of_cores(jobs: int) -> str:
    """Cores for each job, of as many as joblib counts: −1 for one job on each core, −2 for one less."""
    cores = os.cpu_count() or 1
    return str(max(1, cores // max(1, jobs if jobs >= 0 else cores + 1 + jobs)))


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _whole_or_share(value: Any) -> bool:
    return _whole(0)(value) or (isinstance(value, float) and 0 <= value <= 1)


def _one_of(*choices: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: not isinstance(value, bool) and value in choices, f"one of {', '.join(map(str, choices))}"


_AT_LEAST_0 = (_whole(0), "a whole number of at least 0")
_AT_LEAST_1 = (_whole(1), "a whole number of at least 1")
_POSITIVE = (_positive, "a number greater than 0")
# Lightning reads a float as a fraction of the batches and a whole number as their count.
_BATCHES = (
    lambda value: value != 0 and _whole_or_share(value),
    "a whole number of at least 1, or a fraction greater than 0.0 and up to 1.0",
)
_BATCHES_OR_NONE = (_whole_or_share, "a whole number of at least 0, or a fraction from 0.0 to 1.0")
_SWITCH = (lambda value: isinstance(value, bool), "true or false")
_DURATION = re.compile(r"\d+:\d\d:\d\d:\d\d")
_SEED = (lambda value: _whole(0)(value) and value < 2**32, "a whole number from 0 to 4294967295")

_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _SEED,
    "data.seed": _SEED,
    "data.validation_seed": _SEED,
    "data.source": (lambda value: isinstance(value, DictConfig), "the options of a source, which data=CHOICE chooses"),
    "data.root": (lambda value: isinstance(value, str), "a folder, or null"),
    "data.image_shape": (
        lambda value: isinstance(value, ListConfig) and len(value) == 3 and all(map(_whole(1), value)),
        "three whole numbers: [channels, height, width]",
    ),
    "data.batch_size": _AT_LEAST_1,
    "data.eval_batch_size": _AT_LEAST_1,
    "data.validation_size": _AT_LEAST_0,
    "data.num_workers": _AT_LEAST_0,
    "data.horizontal_flip": _SWITCH,
    "data.shift": _AT_LEAST_0,
    "data.labelled": (lambda value: _positive(value) and value <= 1, "a share greater than 0 and up to 1"),
    "data.label_dropout": (
        lambda value: value == 0 or (_positive(value) and value < 1),
        "a probability of at least 0 and below 1",
    ),
    "data.scale": _POSITIVE,
    "model.latent_dim": _AT_LEAST_1,
    "model.optimizer.lr": _POSITIVE,
    "model.lr_scheduler.scheduler.step_size": _AT_LEAST_1,
    "model.objective.beta": (lambda value: value == 0 or _positive(value), "a number of at least 0"),
    "engine.steps_per_call": _AT_LEAST_1,
    "trainer.max_epochs": _AT_LEAST_1,
    "trainer.max_steps": (
        lambda value: value == -1 or _whole(1)(value),
        "a whole number of at least 1, or -1: no limit",
    ),
    "trainer.max_time": (
        lambda value: isinstance(value, DictConfig) or bool(_DURATION.fullmatch(str(value))),
        "days, hours, minutes and seconds, such as 00:01:30:00, or null",
    ),
    "trainer.accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": (
        lambda value: value in ("auto", -1) or _whole(1)(value),
        "a whole number of at least 1, or auto",
    ),
    "trainer.num_nodes": _AT_LEAST_1,
    "trainer.strategy": _one_of("auto", "ddp"),  # both are replaced by the engine's strategies
    # Other precisions would require the images to have the model's precision.
    "trainer.precision": _one_of("32-true", "bf16-mixed", "16-mixed", 32, "32"),
    "trainer.accumulate_grad_batches": _AT_LEAST_1,
    "trainer.log_every_n_steps": _AT_LEAST_0,
    "trainer.val_check_interval": (
        lambda value: isinstance(value, str | DictConfig) or (value != 0 and _whole_or_share(value)),
        "a fraction of an epoch up to 1.0, a whole number of batches, or a time such as 00:01:00:00",
    ),
    "trainer.check_val_every_n_epoch": _AT_LEAST_1,
    "trainer.num_sanity_val_steps": (_whole(-1), "a whole number of at least 0, or -1: all"),
    "trainer.limit_train_batches": _BATCHES,
    "trainer.limit_val_batches": _BATCHES_OR_NONE,
    "trainer.limit_test_batches": _BATCHES,
    "trainer.overfit_batches": _BATCHES_OR_NONE,
    "trainer.gradient_clip_val": (lambda value: value == 0 or _positive(value), "a number of at least 0"),
    "trainer.gradient_clip_algorithm": _one_of("norm", "value"),
    "trainer.deterministic": (lambda value: isinstance(value, bool) or value == "warn", "true, false or warn"),
    "trainer.benchmark": _SWITCH,
    "trainer.detect_anomaly": _SWITCH,
    "trainer.enable_model_summary": _SWITCH,
    "trainer.enable_progress_bar": _SWITCH,
    "trainer.fast_dev_run": (
        lambda value: isinstance(value, bool) or _whole(1)(value),
        "true, false or a number of batches",
    ),
    **{
        f"callbacks.{option}": _AT_LEAST_1
        for option in [
            *("losses.every_n_batches", "grids.every_n_batches", "grids.images", "grids.shown"),
            *("figures.lattice_cells", "figures.quantile_cells", "figures.reconstructions"),
            *("figures.samples", "figures.traversed", "figures.class_samples"),
            *("explorer.points", "explorer.dimensions"),
        ]
    },
    "callbacks.figures.lattice_extent": _POSITIVE,
    "callbacks.figures.scatter_limit": _POSITIVE,
}

# Options of Lightning's trainer that `building.build` sets, and what to set instead.
_SET_HERE = {
    "logger": "choose with logger=csv and others of the group, or logger=none",
    "callbacks": "add one with +callbacks.NAME._target_=CLASS",
    "enable_checkpointing": "leave checkpoints out with '~callbacks.checkpoints'",
    "default_root_dir": "set the run's folder with hydra.run.dir=FOLDER",
    "plugins": "leave it out",
    "use_distributed_sampler": "leave it out; each device gets its share of every batch",
}


def check(config: DictConfig) -> None:
    """Checks everything that can be checked without importing the classes.

    Raises:
        UsageError: if an option does not exist, a group is given as a value, an option is out of range, or a callback
            or schedule monitors a metric that is never measured.
    """
    _check_names(config)
    _check_groups(config)
    for option, (allowed, description) in _ALLOWED.items():
        value = OmegaConf.select(config, option, default=None)
        if value is not None and not allowed(value):
            raise UsageError(f"{option}={value}: must be {description}")
    _check_trainer(config.get("trainer") or {})
    if advice := _why_not_validated(config):
        refuse_monitors(config, lambda metric: metric.startswith("val/"), advice)


def _check_trainer(trainer: Mapping[str, Any]) -> None:
    for name, advice in _SET_HERE.items():
        if name in trainer:
            raise UsageError(f"trainer.{name}={trainer[name]}: is set by the program; {advice}")
    if all(trainer.get(name) in (None, -1) for name in ("max_epochs", "max_steps", "max_time")):
        raise UsageError("trainer.max_epochs=null: needs another limit, trainer.max_steps or trainer.max_time")


def _why_not_validated(config: DictConfig) -> str:
    """Returns why a training would end without a validation, and what to do; nothing if it would not."""
    trainer = config.get("trainer") or {}
    epochs, most = trainer.get("check_val_every_n_epoch"), trainer.get("max_epochs")
    if OmegaConf.select(config, "data.validation_size") == 0:
        return "there are no validation images; hold some out with data.validation_size=1000"
    if trainer.get("fast_dev_run"):
        return ""
    if trainer.get("limit_val_batches") == 0:
        return "is never measured with trainer.limit_val_batches=0; null validates on all held-out images"
    if epochs and most and epochs > most:
        advice = f"set trainer.check_val_every_n_epoch to at most {most}"
        return f"is never measured, because training ends before epoch {epochs}; {advice}"
    return ""


def _check_names(config: DictConfig) -> None:
    """Raises `UsageError` for an option, added with `+`, that nothing reads, not even another option."""
    known = [option.name for option in fields(Config)]
    for name in map(str, config):
        if name not in known and f"${{{name}" not in OmegaConf.to_yaml(config):
            others = (option for option in leaves(config) if option.partition(".")[0] in known)
            raise UsageError(unknown_option(name, known, others))


def _check_groups(config: DictConfig) -> None:
    for choice in config.get("choices") or {}:
        group, _, package = str(choice).partition("@")
        key = package or group.replace("/", ".")
        value = OmegaConf.select(config, key, throw_on_missing=False)
        if value is not None and not isinstance(value, DictConfig):
            raise UsageError(f"{key}={value}: is a group of options; choose with {group}={value}")


def refuse_monitors(config: DictConfig, refused: Callable[[str], bool], advice: str) -> None:
    """Raises `UsageError`, with advice, if a callback or a schedule monitors a metric that is refused."""
    for key, node in _nodes(config):
        monitor = OmegaConf.select(node, "monitor", throw_on_missing=False)
        if isinstance(monitor, str) and refused(monitor):
            raise UsageError(f"{key}.monitor={monitor}: {advice}")


def check_calls(config: DictConfig) -> None:
    """Checks the options of every `_target_` node: their names, simple types, and that none is missing.

    Imports the targets but calls nothing.

    Raises:
        UsageError: naming the option and the allowed values.
    """
    for key, node in _nodes(config):
        if "_target_" in node:
            target = str(node["_target_"])
            try:
                accepted = parameters(target)
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                raise UsageError(f"{key}._target_={target}: cannot be loaded: {error}") from error
            _check_call(key, node, accepted)


def _nodes(node: DictConfig, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    """Yields a node and all nodes below it, with their keys; interpolations are not followed."""
    yield key, node
    name: Any  # a number in dictionaries such as {0: 2, 1: 4}
    for name in node:
        if OmegaConf.is_missing(node, name) or OmegaConf.is_interpolation(node, name):
            continue
        if isinstance(node[name], DictConfig):
            yield from _nodes(node[name], f"{key}.{name}" if key else str(name))


def _check_call(key: str, node: DictConfig, accepted: Mapping[str, inspect.Parameter]) -> None:
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    for name in map(str, node):
        if name.startswith("_"):
            continue
        if name not in accepted:
            if open_ended:
                continue
            raise UsageError(unknown_option(f"{key}.{name}", accepted))
        kind, value = accepted[name].annotation, node[name]
        types = (int, float) if kind is float else kind
        if kind in (int, float, str, bool) and not (
            isinstance(value, types) and isinstance(value, bool) == (kind is bool)
        ):
            raise UsageError(f"{key}.{name}={value}: must be of type {kind.__name__}")
    if missing := _missing(node, accepted):
        raise UsageError(f"{key} also needs {', '.join(missing)}: add +{key}.{missing[0]}=VALUE")


def _missing(node: DictConfig, accepted: Mapping[str, inspect.Parameter]) -> list[str]:
    """Returns the names of required options that a call lacks. Partial calls may get them later."""
    if node.get("_partial_") or node.get("_args_"):
        return []
    return [
        name
        for name, parameter in accepted.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and name not in node
    ]
