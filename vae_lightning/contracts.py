"""Whether the parts of a model keep their contracts: what they must return, and in which shapes."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from torch.distributions import Distribution

from .data.batch import Batch
from .errors import UsageError, first_line
from .likelihoods import Likelihood
from .vae import VAE

__all__ = ["try_contracts"]


def try_contracts(model: VAE, image_shape: Sequence[int], hiding: str = "") -> None:
    """Tries a model on two images of noise, without a change to it or to random numbers.

    Args:
        model: of parts that may be anybody's; some exclude others of a kind.
        image_shape: `(C, H, W)`.
        hiding: the option that hides labels in training, with its value; empty if none does.

    Raises:
        UsageError: if a part breaks its contract, or takes no hidden label where there are some.
    """
    with isolate_rng():
        copy = deepcopy(model).eval()  # an objective may change as it is used
        images = torch.rand(2, *image_shape).to(next(copy.parameters()))
        batch = Batch(images, torch.zeros(2, dtype=torch.long, device=images.device))
        part = "encoder"  # in which an error of a library is raised
        try:
            _try_networks(copy, batch)
            part = "prior"
            copy.prior_distribution(batch.labels)
            part = "objective"
            terms = {**dict.fromkeys(copy.minimised), **copy.objective(copy, batch)}
            _check_terms(terms, "objective: {}; an objective returns named terms")
            part = "likelihood"
            _try_metrics(copy.likelihood, batch.images)
        except ValueError as error:
            names_its_part = re.match(r"\w+: ", str(error))
            raise UsageError(f"model.{error}" if names_its_part else f"model.{part}: {first_line(error)}") from error
        if hiding:
            _try_hidden_label(copy, batch, hiding)


def _try_networks(model: VAE, batch: Batch) -> None:
    """Raises `ValueError` if the encoder or the decoder breaks its contract, with which training may go wrong silently.

    Raw parameters `(B, H, W)`, for example, would be compared with all images of the batch.
    """
    count, image_shape = len(batch.images), tuple(batch.images.shape[1:])
    posterior = model.encode(*batch)
    contract = (
        f"an encoder maps images (B, C, H, W) to a torch.distributions object with rsample, batch shape (B,) and event "
        f"shape (latent_dim,), here ({model.latent_dim},)"
    )
    if not _shaped(posterior, (count,), (model.latent_dim,)):
        raise ValueError(f"encoder: returns {_described(posterior)} for two images; {contract}")
    try:
        codes = posterior.rsample().repeat(3, 1, 1)
    except NotImplementedError as error:
        raise ValueError(f"encoder: returns {_described(posterior)}, which has no rsample; {contract}") from error
    contract = (
        "a decoder maps codes (…, latent_dim), with any number of leading axes, to raw parameters (…, K, H, W), of "
        f"which the likelihood makes p(x|z) with batch shape (…) and event shape (C, H, W), here {image_shape}"
    )
    try:
        decoded = model.decode(codes, batch.labels)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"decoder: fails for codes {tuple(codes.shape)}: {error}; {contract}") from error
    if not _shaped(decoded, (3, count), image_shape):
        raise ValueError(f"decoder: p(x|z) of codes {tuple(codes.shape)} is {_described(decoded)}; {contract}")


def _try_metrics(likelihood: Likelihood, images: Tensor) -> None:
    """Raises `ValueError` if the likelihood's metrics, which are first needed after an epoch, break its contract."""
    if not hasattr(likelihood, "metrics"):
        name = type(likelihood).__name__
        raise ValueError(f"likelihood: {name} has no metrics; derive it from vae_lightning.likelihoods.Likelihood")
    metrics = likelihood.metrics(images, images.new_ones(len(images)), images.new_ones(len(images)))
    _check_terms(metrics, "likelihood: its metric {}; a likelihood has named metrics")


def _try_hidden_label(model: VAE, batch: Batch, hiding: str) -> None:
    """Raises `UsageError` if the objective fails for a batch with one hidden label."""
    try:
        model.objective(model, Batch(batch.images, torch.tensor([0, -1]).to(batch.images.device)))
    except (IndexError, RuntimeError) as error:
        raise UsageError(
            f"{hiding}: hidden labels are -1, for which the model fails: {first_line(error)}. Each part that is given "
            "labels must take them"
        ) from error


def _check_terms(terms: Mapping[str, object], rule: str) -> None:
    """Raises `ValueError`, with a rule that is broken, for a term that is not a floating-point number per image."""
    for name, term in terms.items():
        if not (isinstance(term, Tensor) and term.shape == (2,) and term.is_floating_point()):
            said = rule.format(f"{name} is {_described(term)} for two images")
            raise ValueError(f"{said}, each of floating-point numbers (B,), per image")


def _shaped(found: object, batch_shape: tuple[int, ...], event_shape: tuple[int, ...]) -> bool:
    return isinstance(found, Distribution) and (found.batch_shape, found.event_shape) == (batch_shape, event_shape)


def _described(found: object) -> str:
    name = type(found).__name__
    if isinstance(found, Distribution):
        return f"{name} with batch shape {tuple(found.batch_shape)} and event shape {tuple(found.event_shape)}"
    if isinstance(found, Tensor):
        return f"{name} of shape {tuple(found.shape)} and {str(found.dtype).removeprefix('torch.')}"
    return name
