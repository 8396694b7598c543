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
from ..evaluation import quality
from ..evaluation.reference import reference
from ..latent_spaces import Euclidean
from ..priors import FlowPrior, GaussianMixture, Prior, TwoStage, fit
from ..runs.loading import LoadedRun
from ..runs.priors import load_prior, save_prior

if TYPE_CHECKING:
    from ..vae import VAE

__all__ = ["codes_of", "use_prior", "write_prior"]

KINDS: Mapping[str, type[Prior]] = {"gaussian_mixture": GaussianMixture, "flow": FlowPrior, "two_stage": TwoStage}
CODES = 20_000  # at least: of few images, several samples of each posterior
TESTED = 2000  # test images and samples, at most, whose Fréchet distance is measured


def write_prior(run: LoadedRun, options: argparse.Namespace, output: Path) -> dict[Path, str]:
    """Fits a prior, saves it with the run, and says how far samples are from test images before and after."""
    from tqdm import tqdm

    model = run.model
    if not isinstance(model.latent_space, Euclidean):
        space = model.latent_space.description
        raise UsageError(f"--kind {options.kind}: is a density on R^d, but the codes of this run lie on {space}")
    if options.data_root:
        run.config["data"]["root"] = options.data_root
    torch.manual_seed(options.seed)
    codes = codes_of(model, Batch(*run.data.examples("train", options.images)))
    if len(codes) < (options.components or 2):
        raise UsageError(f"--components {options.components}: is more than the {len(codes):,} codes it is fitted to")
    config = _config(options, model.latent_dim)
    prior = KINDS[options.kind](**{name: value for name, value in config.items() if name != "_target_"})
    with tqdm(total=1, desc="fitting", bar_format="{l_bar}{bar}| {elapsed}<{remaining}", disable=None) as bar:
        fit(prior.to(model.device), codes, options.steps, bar.update)
    distance = _distance_to_tests(run)
    found: dict[str, Any] = {"kind": options.kind, "seed": options.seed, "codes": len(codes)}
    said = f"{options.kind} fitted to {len(codes):,} codes"
    if distance is None:
        said += "; no Fréchet distances of samples, because a classifier of these images cannot be trained"
    else:
        before = distance()
        model.prior = prior.eval().requires_grad_(False)
        found |= {"frechet_before": before, "frechet_after": distance()}
        said += f"; Fréchet distance of samples {before:.1f} before, {found['frechet_after']:.1f} after"
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


def _config(options: argparse.Namespace, latent_dim: int) -> dict[str, Any]:
    """The call that makes the prior; options of another kind are refused."""
    kind = KINDS[options.kind]
    config: dict[str, Any] = {"_target_": f"vae_lightning.priors.{kind.__name__}", "latent_dim": latent_dim}
    for option, owner in (("components", GaussianMixture), ("transforms", FlowPrior)):
        value = getattr(options, option)
        if value is not None and kind is not owner:
            raise UsageError(f"--{option} {value}: --kind {options.kind} has none; leave it out")
        if value is not None:
            config[option] = value
    return config | ({"full": True} if kind is GaussianMixture else {})


def _distance_to_tests(run: LoadedRun) -> Callable[[], float] | None:
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
    features = judge.classifier.features(images.to(model.device))

    def measure() -> float:
        torch.manual_seed(0)
        parts = torch.arange(len(images)).split(at_once(images.shape[1:]))
        with torch.no_grad():
            samples = [judge.classifier.features(model.sample(len(part)).clamp(0, 1)) for part in parts]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*will save all extracted features.*")
            return quality.distances(features, torch.cat(samples)).frechet

    return measure
