"""Fits a prior to the codes of a finished run, so that samples come from where codes are."""

import argparse
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.batch import Batch
from ..data.sizes import at_once
from ..errors import UsageError
from ..metrics import quality
from ..metrics.reference import reference
from ..objectives import ELBO
from ..posteriors import codebook_of
from ..priors import AutoregressiveCodes, FlowPrior, GaussianMixture, Prior, TwoStage, fit
from ..runs.fitted_priors import load_prior, save_prior
from ..runs.loading import LoadedRun

if TYPE_CHECKING:
    from ..vae import VAE

__all__ = ["codes_of", "use_prior", "write_prior"]

KINDS: Mapping[str, type[Prior]] = {
    "autoregressive": AutoregressiveCodes,
    "flow": FlowPrior,
    "gaussian_mixture": GaussianMixture,
    "two_stage": TwoStage,
}
CODES = 20_000  # at least: of few images, several samples of each posterior
WHAT = [("elbo", "elbo", 2), ("bits_per_dim", "bits per dimension", 3), ("frechet", "Fréchet distance of samples", 1)]
TESTED = 2000  # test images and samples, at most, whose Fréchet distance is measured


def write_prior(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Fits a prior, saves it with the run, and says what it does to the test images' elbo and to samples."""
    from tqdm import tqdm

    model = run.model
    here, there = KINDS[options.kind].latent_space, type(model.latent_space)
    if here is not there:
        known = ", ".join(kind for kind, made in KINDS.items() if made.latent_space is there) or "none"
        raise UsageError(
            f"--kind {options.kind}: is one of codes on {here.description}, but this run's lie on {there.description}; "
            f"for them there is {known}"
        )
    if options.data_root:
        run.config["data"]["root"] = options.data_root
    torch.manual_seed(options.seed)
    codes = codes_of(model, Batch(*run.data.examples("train", options.images)))
    if len(codes) < (options.components or 2):
        raise UsageError(f"--components {options.components}: is more than the {len(codes):,} codes it is fitted to")
    config = _config(options, model)
    prior = KINDS[options.kind](**{name: value for name, value in config.items() if name != "_target_"})
    prior.attach(model.encoder)
    with tqdm(total=1, desc="fitting", bar_format="{l_bar}{bar}| {elapsed}<{remaining}", disable=None) as bar:
        fit(prior.to(model.device), codes, options.steps, bar.update)
    distance = _distance_to_tests(run)
    before = {**_bound(run), **(distance() if distance else {})}
    model.prior = prior.eval().requires_grad_(False)
    after = {**_bound(run), **(distance() if distance else {})}
    found: dict[str, Any] = {"kind": options.kind, "seed": options.seed, "codes": len(codes)}
    for when, part in (("before", before), ("after", after)):
        found |= {f"{name}_{when}": value for name, value in part.items()}
    said = f"{options.kind} fitted to {len(codes):,} codes"
    for name, text, digits in WHAT:
        if name in before:
            said += f"; {text} {before[name]:.{digits}f} before, {after[name]:.{digits}f} after"
    if distance is None:
        said += "; no Fréchet distances of samples, because a classifier of these images cannot be trained"
    save_prior(run.run, output.stem, config, prior, found)
    return {output: said}


def use_prior(run: LoadedRun, name: str | None) -> None:
    """Makes the run's model sample from a fitted prior, if one is named."""
    if name is not None:
        run.model.prior = load_prior(run, name)  # type: ignore[assignment]


@torch.no_grad()
def codes_of(model: "VAE", batch: Batch) -> Tensor:
    """Returns samples `(N, latent_dim)` of the posteriors of images, at least `CODES`, on the model's device."""
    size = at_once(batch.images.shape[1:])
    each = -(-CODES // len(batch.images))
    labels = [None] * len(batch.images) if batch.labels is None else batch.labels.to(model.device).split(size)
    found = [
        model.encode(images.to(model.device), known).sample((each,)).flatten(0, 1)
        for images, known in zip(batch.images.split(size), labels, strict=False)
    ]
    return torch.cat(found)


def _config(options: argparse.Namespace, model: "VAE") -> dict[str, Any]:
    """The call that makes the prior; options of another kind are refused."""
    kind = KINDS[options.kind]
    config: dict[str, Any] = {"_target_": f"vae_lightning.priors.{kind.__name__}"}
    if kind is AutoregressiveCodes:
        codebook = codebook_of(model.encoder)
        config |= {"positions": codebook.positions, "size": codebook.size}
    else:
        config["latent_dim"] = model.latent_dim
    for option, owner in (("components", GaussianMixture), ("transforms", FlowPrior)):
        value = getattr(options, option)
        if value is not None and kind is not owner:
            raise UsageError(f"--{option} {value}: --kind {options.kind} has none; leave it out")
        if value is not None:
            config[option] = value
    return config | ({"full": True} if kind is GaussianMixture else {})


@torch.no_grad()
def _bound(run: LoadedRun) -> dict[str, float]:
    """The elbo of test images under the model's present prior, and bits per dimension where grey levels have them."""
    model = run.model
    if not model.has_bound:
        return {}
    torch.manual_seed(0)
    images, labels = run.data.examples("test", TESTED)
    parts = images.split(at_once(images.shape[1:]))
    classes = [None] * len(parts) if labels is None else labels.to(model.device).split(len(parts[0]))
    terms: dict[str, float] = {}
    for part, known in zip(parts, classes, strict=True):
        batch = Batch(part.to(model.device), known)
        bound = ELBO()(model, batch)
        metrics = model.likelihood.metrics(batch.images, bound["distortion"], bound["rate"])
        for name, values in {"elbo": -bound["loss"], **metrics}.items():
            terms[name] = terms.get(name, 0.0) + values.cpu().double().sum().item() / len(images)
    return {name: terms[name] for name in ("elbo", "bits_per_dim") if name in terms}


def _distance_to_tests(run: LoadedRun) -> Callable[[], dict[str, float]] | None:
    """A function that measures the Fréchet distance of samples from test images; None if images cannot be compared."""
    model = run.model
    data: Any = run.data
    images, labels = data.examples("test", TESTED)
    known = data.examples("train", TESTED).labels
    if labels is None or known is None or min(len(labels.unique()), len(known.unique())) < 2:
        return None
    judge = reference(data, model.device, probe_images=5000)
    if judge.at_chance:
        return None
    features, binary = judge.classifier.features(images.to(model.device)), quality.are_binary(images)

    def measure() -> dict[str, float]:
        torch.manual_seed(0)
        parts = torch.arange(len(images)).split(at_once(images.shape[1:]))
        with torch.no_grad():
            means = (model.sample(len(part)) for part in parts)
            samples = [judge.classifier.features(quality.pictures(part, binary)) for part in means]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*will save all extracted features.*")
            return {"frechet": quality.distances(features, torch.cat(samples)).frechet}

    return measure
