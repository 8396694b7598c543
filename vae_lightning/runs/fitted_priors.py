"""Priors that were fitted to a finished run: `priors/NAME.pt`, with the configuration and tensors only.

They are loaded as carefully as runs are (see `loading`), and only for the weights they were fitted to.
"""

import hashlib
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hydra.utils import instantiate
from omegaconf import OmegaConf

from ..errors import first_line
from .atomic import write_file
from .loading import LoadedRun
from .run import Run
from .trust import LoadError, vet

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LoadError", "check_name", "load_prior", "save_prior"]


def check_name(name: str) -> None:
    """Raises `LoadError` for a name that could be a path."""
    if not re.fullmatch(r"\w[\w.-]*", name, re.ASCII):
        raise LoadError(f"{name}: the name of a prior has letters, digits and . _ - only")


def save_prior(run: Run, name: str, config: Mapping[str, Any], prior: "nn.Module", found: Mapping[str, Any]) -> None:
    """Saves a prior with a run, atomically.

    Args:
        run: whose codes it was fitted to.
        name: see `check_name`.
        config: the call that makes it: `_target_` and arguments.
        prior: whose state is saved.
        found: what is known of it: strings and numbers.

    Raises:
        OSError: with the file's name.
    """
    import torch

    content = io.BytesIO()
    state = {key: value.cpu() for key, value in prior.state_dict().items()}
    torch.save({"config": dict(config), "state_dict": state, "weights": _weights(run), "found": dict(found)}, content)
    file = run.prior_file(name)
    file.parent.mkdir(exist_ok=True)
    write_file(file, content.getvalue())


def load_prior(run: LoadedRun, name: str) -> "nn.Module":
    """Returns a prior that was fitted to a run, on the device of the run's model.

    Raises:
        LoadError: if there is none of this name, if the run's weights have changed since, or if the file is damaged or
            names a class that must not be instantiated.
    """
    import torch

    check_name(name)
    file = run.run.prior_file(name)
    if not file.is_file():
        known = run.run.priors()
        hint = f"it has {', '.join(known)}" if known else f"vae-generate fit-prior {run.run.folder} makes one"
        raise LoadError(f"{run.run.folder}: has no fitted prior {name}; {hint}")
    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
        config, state, weights = found["config"], found["state_dict"], found["weights"]
    except Exception as error:  # a damaged file may raise anything
        raise LoadError(f"{file}: cannot be read as a prior: {first_line(error)[:120]}") from error
    if weights != _weights(run.run):
        raise LoadError(f"{file}: was fitted to other weights than the run has now; fit it again, with --force")
    vet({"config": config}, run.trust)
    try:
        prior = instantiate(OmegaConf.create(dict(config)), _convert_="all")
        prior.load_state_dict(state)
    except Exception as error:  # constructors may raise anything
        raise LoadError(f"{file}: cannot be made: {first_line(error.__cause__ or error)[:120]}") from error
    if getattr(prior, "latent_space", None) is not type(run.model.latent_space):
        raise LoadError(f"{file}: is no prior of this run's codes")
    try:
        prior.attach(run.model.encoder)
    except ValueError as error:
        raise LoadError(f"{file}: {error}") from error
    return prior.eval().requires_grad_(False).to(run.model.device)


def _weights(run: Run) -> str:
    """A digest of the weights that were tested."""
    with run.weights_file.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
