"""Composes a configuration in Python as on the command line, without leaving global Hydra state behind."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra import compose as compose_with_hydra
from hydra import initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ..errors import UsageError
from ..runs import sweep_overrides
from .files import CONFIGURATION
from .messages import explain
from .schema import register

__all__ = ["compose", "of_groups", "without_hydra"]

log = logging.getLogger(__name__)


def compose(*overrides: str, config_dir: str | Path | None = None) -> DictConfig:
    """Returns the configuration of a run as composed by `vae-train OVERRIDES`.

    Args:
        overrides: `KEY=VALUE` or `GROUP=CHOICE`, as on the command line; no sweeps. The log names what an experiment
            sweeps and the overrides do not set: it is left out.
        config_dir: a folder with your own groups, as for `--config-dir`.

    Raises:
        UsageError: naming the option, its value and what is allowed.

    >>> config = compose("data=glyphs", "model=mlp", "model.latent_dim=16")
    >>> config.model.latent_dim, config.choices["model"]
    (16, 'mlp')
    """
    register()
    if config_dir and not Path(config_dir).is_dir():
        raise UsageError(f"config_dir={config_dir}: there is no such folder")
    search = [f"hydra.searchpath=[{Path(config_dir).resolve().as_uri()}]"] if config_dir else []
    try:
        with initialize_config_dir(str(CONFIGURATION), version_base="1.3"):
            composed = compose_with_hydra("train", overrides=[*overrides, *search], return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:  # ValueError for GROUP=null
        raise UsageError(explain(error, overrides)) from error
    hydra: Any = OmegaConf.to_container(composed.hydra)  # an interpolation in the overrides is the user's text
    if swept := ", ".join(str(override.input_line) for override in sweep_overrides(hydra).values()):
        log.warning("compose: leaves out %s; choose one value of each, or run the sweep with vae-train", swept)
    choices = of_groups(composed.hydra.runtime.choices, overrides)
    return without_hydra(composed, choices)


def without_hydra(composed: DictConfig, choices: Mapping[str, Any]) -> DictConfig:
    """Returns a run's configuration without the `hydra` node, and with the choices it was composed from."""
    config = OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])
    with open_dict(config):
        config.choices = dict(choices)
    OmegaConf.set_struct(config, True)
    return config


def of_groups(choices: Mapping[Any, Any], overrides: Iterable[str] = ()) -> dict[str, str]:
    """Returns the choices of a run's groups, without Hydra's own.

    Args:
        choices: as Hydra notes them, which it does not for a group that is given a list.
        overrides: those of the command line.

    >>> of_groups({"model": "conv", "experiment": None}, ["callbacks=[default, ema]", "data.image_shape=[1,8,8]"])
    {'model': 'conv', 'callbacks': 'default,ema'}
    """
    found = {
        str(group): str(choice) for group, choice in choices.items() if not str(group).startswith("hydra/") and choice
    }
    for group, _, value in (override.partition("=") for override in overrides):
        if "." not in group and value.startswith("["):
            found[group] = value.strip("[]").replace(" ", "")
    return found
