"""The linear VAE is probabilistic PCA, whose maximum likelihood is known: an oracle of all parts of a model at once.

Tipping and Bishop (1999), https://doi.org/10.1111/1467-9868.00196; Lucas et al. (2019), https://arxiv.org/abs/1911.02469.
"""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from scipy.stats import multivariate_normal
from shared import compose_config, run_command
from torch import Tensor

from vae_lightning.data.batch import Batch
from vae_lightning.metrics.bounds import log_weights
from vae_lightning.vae import VAE

SHAPE, LATENT_DIM = (1, 4, 5), 3
PIXELS = 20


class Optimum(NamedTuple):
    """The parameters of most likely probabilistic PCA, and the log-likelihood of each image under it."""

    mean: Tensor
    directions: Tensor  # (PIXELS, LATENT_DIM)
    variances: Tensor  # along them, falling
    noise: Tensor  # variance of each pixel
    log_likelihood: Tensor


@pytest.fixture(scope="module")
def images() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    scales = torch.linspace(0.1, 2, PIXELS, dtype=torch.float64)
    independent = torch.randn(80, PIXELS, generator=generator, dtype=torch.float64) * scales
    mixing = torch.randn(PIXELS, PIXELS, generator=generator, dtype=torch.float64) / PIXELS**0.5
    return (independent @ mixing + 0.5).view(-1, *SHAPE)


@pytest.fixture(scope="module")
def optimum(images: Tensor) -> Optimum:
    data = images.flatten(1).numpy()
    variances, directions = np.linalg.eigh(np.cov(data.T, bias=True))
    variances, directions = variances[::-1].copy(), directions[:, ::-1].copy()
    noise = variances[LATENT_DIM:].mean()
    kept, along = variances[:LATENT_DIM], directions[:, :LATENT_DIM]
    covariance = along @ np.diag(kept - noise) @ along.T + noise * np.eye(PIXELS)
    found = multivariate_normal(data.mean(0), covariance).logpdf(data)
    return Optimum(*map(torch.as_tensor, (data.mean(0), along, kept, noise, found)))


@pytest.fixture
def model() -> VAE:
    torch.manual_seed(0)
    options = ["model=linear", "model/likelihood=gaussian", f"model.latent_dim={LATENT_DIM}"]
    shape = f"data.image_shape=[{','.join(map(str, SHAPE))}]"
    return instantiate(compose_config(*options, shape).model, _convert_="all").double()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> int:
    """Replaces noise by 2·LATENT_DIM points with its mean and covariance, and returns their number.

    With each image repeated so often, means over a batch are expectations: all of the bound is quadratic in z.
    """
    corners = LATENT_DIM**0.5 * torch.cat([torch.eye(LATENT_DIM), -torch.eye(LATENT_DIM)]).double()
    monkeypatch.setattr(
        "torch.distributions.normal._standard_normal", lambda shape, **_: corners.repeat(shape[0] // len(corners), 1)
    )
    return len(corners)


@torch.no_grad()
def set_to(model: VAE, optimum: Optimum) -> None:
    factors = optimum.directions * (optimum.variances - optimum.noise).sqrt()
    model.decoder.pixels.weight.copy_(factors)
    model.decoder.pixels.bias.copy_(optimum.mean)
    projection = factors.T / optimum.variances[:, None]
    head = model.encoder.head
    head.mean.weight.copy_(projection)
    head.mean.bias.copy_(-projection @ optimum.mean)
    head.log_variance.weight.zero_()
    head.log_variance.bias.copy_((optimum.noise / optimum.variances).log())
    model.likelihood.log_scale.value.copy_(optimum.noise.log() / 2 / model.likelihood.log_scale.gain)


def test_at_the_optimum_every_sample_has_the_exact_likelihood_as_its_weight(
    model: VAE, images: Tensor, optimum: Optimum
) -> None:
    """The posterior is exact there: p(x|z) p(z) / q(z|x) does not depend on z."""
    set_to(model, optimum)
    batch = Batch(images)
    found = log_weights(model, batch, model.encode(images), model.prior_distribution(), 7)
    torch.testing.assert_close(found, optimum.log_likelihood.expand(7, -1), atol=1e-9, rtol=0)


def test_at_the_optimum_the_bound_is_the_likelihood_and_has_no_gradient(
    model: VAE, images: Tensor, optimum: Optimum, exact: int
) -> None:
    set_to(model, optimum)
    loss = model.objective(model, Batch(images.repeat_interleave(exact, 0)))["loss"].mean()
    assert loss.item() == pytest.approx(-optimum.log_likelihood.mean().item(), abs=1e-9)
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() < 1e-8, name


def test_the_optimum_is_learned_from_a_random_start(model: VAE, images: Tensor, optimum: Optimum, exact: int) -> None:
    batch = Batch(images.repeat_interleave(exact, 0))
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=300, history_size=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = model.objective(model, batch)["loss"].mean()
        found.backward()
        return found

    assert loss().item() > 1 - optimum.log_likelihood.mean().item()
    optimizer.step(loss)
    assert loss().item() == pytest.approx(-optimum.log_likelihood.mean().item(), abs=5e-3)
    # Of the factors, only their order and signs are free: the posterior's dimensions are independent.
    weights = model.decoder.pixels.weight.detach()
    lengths = weights.square().sum(0)
    torch.testing.assert_close(
        lengths.sort(descending=True).values, optimum.variances - optimum.noise, rtol=0.05, atol=0
    )
    cosines = (weights / lengths.sqrt()).T @ optimum.directions
    torch.testing.assert_close(cosines.abs().amax(1), torch.ones_like(lengths), rtol=0, atol=0.01)


@pytest.mark.slow
def test_a_published_experiment_is_about_the_bound_alone(tmp_path: Path) -> None:
    """A short run of one, on other data: no grids, no measurements but those of the bound."""
    options = ["data=glyphs", "data.source.train_size=200", "data.source.test_size=40", "trainer.accelerator=cpu"]
    options += ["hydra.mode=RUN", "hydra.run.dir=run", "trainer.max_epochs=2", "model.latent_dim=2"]
    options += ["callbacks.measurements.bound_samples=5", "~callbacks.figures"]
    done = run_command("vae_lightning.cli", "experiment=published_linear", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["steps"] == 4
    assert metrics["test/iw_bound"] > metrics["test/elbo"] - 5 * metrics["test/iw_bound_stderr"]
    assert not {"test/knn_accuracy", "test/frechet_samples", "test/trustworthiness"} & metrics.keys()
    assert not (tmp_path / "run" / "figures" / "grids").exists()
