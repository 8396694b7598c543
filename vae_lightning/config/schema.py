"""The root of the configuration: a dataclass, so that a misspelt key or a value of the wrong type is an error.

The nodes below the root are open, because they are constructor calls (`_target_`) whose options the classes know.
`check` looks at the ranges of the usual options before anything is imported; `check_calls` holds every call against
its class's signature before anything is made.
"""

import inspect
import os
import pkgutil
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf

from ..errors import UsageError
from ..runs import run_name
from .messages import unknown_option

__all__ = ["Config", "check", "check_calls", "register"]


@dataclass
class Config:
    """What a run is made of.

    Attributes:
        study: what the sweep or run is called in folder names and titles.
        seed: of initialisation, shuffling and noise.
        resume: whether a folder that holds this run already is gone on with.
        data: the `LightningDataModule`.
        model: the `LightningModule`.
        trainer: Lightning's trainer.
        callbacks: Lightning callbacks, by name.
        logger: Lightning loggers, by name.
        engine: how steps are taken, options of `vae_lightning.engine.options.Options`.
        run_dir: the run's folder, set when the run starts.
        choices: what was chosen of each group, set when the configuration has been composed.
    """

    study: str = MISSING
    seed: int = MISSING
    resume: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)
    callbacks: dict[str, Any] = field(default_factory=dict)
    logger: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)
    run_dir: str = MISSING
    choices: dict[str, str] = field(default_factory=dict)


def register() -> None:
    """Makes the schema and the resolvers known to Hydra."""
    ConfigStore.instance().store(name="schema", node=Config)
    OmegaConf.register_new_resolver("run_name", run_name, replace=True)
    OmegaConf.register_new_resolver("share_of_cores", _share_of_cores, replace=True)
    # Cached: the same for all jobs of a sweep, as Hydra's `now` is; different for sweeps of the same second.
    OmegaConf.register_new_resolver("unique", lambda: secrets.token_hex(3), use_cache=True, replace=True)


def _share_of_cores(jobs: int) -> str:
    return str(max(1, (os.cpu_count() or 1) // max(1, jobs)))


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= least


def _positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _one_of(*choices: Any) -> tuple[Callable[[Any], bool], str]:
    return lambda value: not isinstance(value, bool) and value in choices, f"one of {', '.join(map(str, choices))}"


_AT_LEAST_0 = (_whole(0), "a whole number of at least 0")
_AT_LEAST_1 = (_whole(1), "a whole number of at least 1")
_POSITIVE = (_positive, "a number greater than 0")
_SEED = (lambda value: _whole(0)(value) and value < 2**32, "a whole number from 0 to 4294967295")

_ALLOWED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "seed": _SEED,
    "data.seed": _SEED,
    "data.validation_seed": _SEED,
    "data.image_shape": (
        lambda value: isinstance(value, ListConfig) and len(value) == 3 and all(map(_whole(1), value)),
        "three whole numbers: [channels, height, width]",
    ),
    "data.batch_size": _AT_LEAST_1,
    "data.eval_batch_size": _AT_LEAST_1,
    "data.validation_size": _AT_LEAST_0,
    "data.num_workers": _AT_LEAST_0,
    "data.scale": _POSITIVE,
    "model.latent_dim": _AT_LEAST_1,
    "model.steps_per_call": _AT_LEAST_1,
    "model.optimizer.lr": _POSITIVE,
    "model.objective.beta": (lambda value: value == 0 or _positive(value), "a number of at least 0"),
    "trainer.max_epochs": _AT_LEAST_1,
    "trainer.accelerator": _one_of("auto", "cpu", "gpu", "cuda", "mps"),
    "trainer.devices": (
        lambda value: value in ("auto", -1) or _whole(1)(value),
        "a whole number of at least 1, or auto",
    ),
    "trainer.num_nodes": _AT_LEAST_1,
    # Under the others, the images would have to have the model's precision as well.
    "trainer.precision": _one_of("32-true", "bf16-mixed", "16-mixed", 32, "32"),
    "trainer.accumulate_grad_batches": _AT_LEAST_1,
    "trainer.limit_train_batches": _POSITIVE,
    "trainer.limit_test_batches": _POSITIVE,
    **{
        f"callbacks.{option}": _AT_LEAST_1
        for option in [
            *("losses.every_n_batches", "grids.every_n_batches", "grids.images", "grids.shown"),
            *("figures.lattice_cells", "figures.quantile_cells", "figures.reconstructions"),
            *("figures.samples", "figures.traversed"),
        ]
    },
    "callbacks.figures.lattice_extent": _POSITIVE,
    "callbacks.figures.scatter_limit": _POSITIVE,
}


def check(config: DictConfig) -> None:
    """Checks the options that have a range.

    Raises:
        UsageError: naming the option, its value and what is allowed.
    """
    for option, (allowed, description) in _ALLOWED.items():
        value = OmegaConf.select(config, option, default=None)
        if value is not None and not allowed(value):
            raise UsageError(f"{option}={value}: must be {description}")


def check_calls(config: DictConfig) -> None:
    """Checks the names, and where they are annotated simply the types, of the options of every `_target_` node.

    Imports what the targets name, but calls nothing.

    Raises:
        UsageError: naming the option and what there is, or the type that it must have.
    """
    for key, node in _nodes(config):
        if "_target_" in node:
            target = str(node["_target_"])
            try:
                parameters = inspect.signature(pkgutil.resolve_name(target)).parameters
            except (ImportError, AttributeError, TypeError, ValueError) as error:
                raise UsageError(f"{key}._target_={target}: cannot be loaded: {error}") from error
            _check_call(key, node, parameters)


def _nodes(node: DictConfig, key: str = "") -> Iterator[tuple[str, DictConfig]]:
    yield key, node
    for name in node:
        child, name = node[name], str(name)
        if isinstance(child, DictConfig):
            yield from _nodes(child, f"{key}.{name}" if key else name)


def _check_call(key: str, node: DictConfig, parameters: Mapping[str, inspect.Parameter]) -> None:
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in map(str, node):
        if name.startswith("_"):
            continue
        if name not in parameters:
            if open_ended:
                continue
            raise UsageError(unknown_option(f"{key}.{name}", parameters))
        kind, value = parameters[name].annotation, node[name]
        accepted = (int, float) if kind is float else kind
        if kind in (int, float, str, bool) and not (
            isinstance(value, accepted) and isinstance(value, bool) == (kind is bool)
        ):
            raise UsageError(f"{key}.{name}={value}: must be of type {kind.__name__}")
