"""DIP-VAE, WAE-MMD, the RAEs, GECO and MS-SSIM against their formulas, in float64."""

from itertools import product

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from numpy.lib.stride_tricks import sliding_window_view
from shared import compose_config
from small_models import D, SmallModel, seeded, small_images, small_model
from torch import Tensor
from torch.distributions import Distribution, MultivariateNormal, TransformedDistribution
from torch.distributions.transforms import TanhTransform

from vae_lightning.data.batch import Batch
from vae_lightning.objectives import DIPI, DIPII, GECO, RAEGP, RAEL2, WAEMMD
from vae_lightning.objectives.ms_ssim import multiscale_ssim


@pytest.fixture
def model() -> SmallModel:
    return small_model()


@pytest.fixture
def images() -> Tensor:
    return small_images()


def dip_penalty(covariance: np.ndarray, off_diagonal: float, diagonal: float) -> float:
    return sum(
        diagonal * (covariance[i, i] - 1) ** 2 if i == j else off_diagonal * covariance[i, j] ** 2
        for i, j in product(range(D), repeat=2)
    )


@pytest.mark.parametrize("full", [False, True])
def test_dip_draws_the_covariance_to_the_identity(model: SmallModel, images: Tensor, full: bool) -> None:
    posterior = model.encode(images)
    within = np.mean([np.diag(variance) for variance in posterior.variance.detach().numpy()], 0)
    if full:
        factor = torch.randn(len(images), D, D, dtype=torch.float64).tril()
        model.encode = lambda x, labels=None: MultivariateNormal(posterior.mean, scale_tril=factor + 2 * torch.eye(D))
        within = model.encode(images).covariance_matrix.mean(0).numpy()
    means = np.cov(posterior.mean.detach().numpy().T, ddof=0)
    for objective, covariance in [(DIPI(3.0, 7.0), means), (DIPII(3.0, 7.0), means + within)]:
        terms = objective(model, Batch(images))
        expected = torch.full((len(images),), dip_penalty(covariance, 3.0, 7.0), dtype=torch.float64)
        torch.testing.assert_close(terms["covariance_penalty"], expected)
        torch.testing.assert_close(terms["loss"], terms["distortion"] + terms["rate"] + expected)


def test_dip_ii_needs_moments_with_gradients(model: SmallModel, images: Tensor) -> None:
    def encode(x: Tensor, labels: Tensor | None = None) -> Distribution:
        return TransformedDistribution(SmallModel.encode(model, x), [TanhTransform()])

    model.encode = encode  # type: ignore[method-assign]
    assert DIPI()(model, Batch(images))["loss"].requires_grad
    with pytest.raises(ValueError, match="DIPII needs a posterior whose moments have a closed form, not Transformed"):
        DIPII()(model, Batch(images))


def test_wae_mmd_is_the_double_sum(model: SmallModel, images: Tensor) -> None:
    terms, z, _ = seeded(WAEMMD(20.0, [0.5, 3.0]), model, images)
    drawn = model.prior.distribution().sample((len(images),))  # the seed stands where the objective drew them

    def kernel(a: Tensor, b: Tensor) -> float:
        distance = ((a - b) ** 2).sum().item()
        return sum(2 * D * scale / (2 * D * scale + distance) for scale in (0.5, 3.0))

    count = len(images)
    apart = [(i, j) for i in range(count) for j in range(count) if i != j]
    within = sum(kernel(points[i], points[j]) for points in (z, drawn) for i, j in apart) / len(apart)
    across = sum(kernel(a, b) for a in z for b in drawn) / count**2
    torch.testing.assert_close(terms["loss"], terms["distortion"] + 20 * (within - 2 * across))


def test_rae_l2_is_the_formula(model: SmallModel, images: Tensor) -> None:
    terms = RAEL2(beta=0.3, weight=0.7)(model, Batch(images))
    z = model.head.mean(images.flatten(1))
    p = model.decoder(z).sigmoid().view_as(images)
    distortion = -(images * p.log() + (1 - images) * (1 - p).log()).sum((1, 2, 3))
    size = (model.decoder.weight**2).sum() + (model.decoder.bias**2).sum()
    torch.testing.assert_close(terms["distortion"], distortion)
    torch.testing.assert_close(terms["loss"], distortion + 0.15 * (z**2).sum(1) + 0.7 * size)


def test_rae_gp_is_the_jacobian_of_the_decoder(model: SmallModel, images: Tensor) -> None:
    objective = RAEGP(beta=0.3, weight=0.7)
    torch.manual_seed(3)
    terms = objective(model, Batch(images))
    torch.manual_seed(3)
    probes = torch.randn_like(images).flatten(1)
    z = model.head.mean(images.flatten(1)).detach()

    def pixels(code: Tensor) -> Tensor:
        return model.decoder(code).sigmoid()

    jacobians = [torch.autograd.functional.jacobian(pixels, code) for code in z]
    expected = torch.stack([((v @ jacobian) ** 2).sum() for v, jacobian in zip(probes, jacobians, strict=True)])
    torch.testing.assert_close(terms["decoder_penalty"], expected)
    rest = terms["distortion"] + 0.15 * (z**2).sum(1)
    torch.testing.assert_close(terms["loss"], rest + 0.7 * expected)
    with torch.inference_mode():
        torch.manual_seed(3)
        torch.testing.assert_close(objective(model, Batch(images.clone()))["decoder_penalty"], expected)
    many = objective(model, Batch(images[:1].repeat(40_000, 1, 1, 1)))["decoder_penalty"].mean()
    torch.testing.assert_close(many, (jacobians[0] ** 2).sum(), rtol=0.03, atol=0)


def test_geco_moves_the_multiplier_by_the_violation(model: SmallModel) -> None:
    tolerance, smoothing, speed = 0.2, 0.8, 0.5
    objective = GECO(tolerance, smoothing, speed).double()
    average, multiplier = None, 1.0
    for step in range(5):
        images = small_images(4 + step)
        terms, z, _ = seeded(objective, model, images)
        mean = model.decoder(z).sigmoid().view_as(images)
        constraint = ((images - mean) ** 2).sum((1, 2, 3)) - 6 * tolerance**2
        torch.testing.assert_close(terms["constraint"], constraint)
        torch.testing.assert_close(terms["loss"], terms["rate"] + multiplier * constraint)
        now = constraint.mean().item() / (6 * tolerance**2)
        average = now if average is None else smoothing * average + (1 - smoothing) * now
        multiplier *= np.exp(speed * average)
        objective.advance()
        assert objective.multiplier.item() == pytest.approx(multiplier)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    assert set(before) == {"average", "multiplier", "seen"}
    objective.eval()(model, Batch(images))
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    for _ in range(1000):
        objective.advance()
    assert objective.multiplier.item() == 1e6


WINDOW = np.outer(*[np.exp(-0.5 * ((np.arange(11) - 5) / 1.5) ** 2)] * 2)
WINDOW /= WINDOW.sum()


def structural(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """Means of the similarity and of its contrast and structure over all windows inside two images."""
    similarities, contrasts = [], []
    windows = (sliding_window_view(image, (11, 11)).reshape(-1, 11, 11) for image in (one, other))
    for x, y in zip(*windows, strict=True):
        mean_x, mean_y = (x * WINDOW).sum(), (y * WINDOW).sum()
        variances = ((x - mean_x) ** 2 * WINDOW).sum() + ((y - mean_y) ** 2 * WINDOW).sum()
        covariance = ((x - mean_x) * (y - mean_y) * WINDOW).sum()
        contrasts.append((2 * covariance + 0.03**2) / (variances + 0.03**2))
        brightness = (2 * mean_x * mean_y + 0.01**2) / (mean_x**2 + mean_y**2 + 0.01**2)
        similarities.append(brightness * contrasts[-1])
    return float(np.mean(similarities)), float(np.mean(contrasts))


def test_ms_ssim_is_the_product_over_scales() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 28, 30, dtype=torch.float64)
    others = (images + 0.2 * torch.randn_like(images)).clamp(0, 1)
    for one, other, found in zip(images, others, multiscale_ssim(images, others), strict=True):
        x, y = one[0].numpy(), other[0].numpy()
        halves = (image.reshape(14, 2, 15, 2).mean((1, 3)) for image in (x, y))
        _, fine = structural(x, y)
        coarse, _ = structural(*halves)
        share = 0.0448 / (0.0448 + 0.2856)
        assert found.item() == pytest.approx(fine**share * coarse ** (1 - share))
    same = multiscale_ssim(images, images)
    torch.testing.assert_close(same, torch.ones_like(same))


@pytest.mark.parametrize("size", [11, 21, 22, 44, 180])
def test_ms_ssim_has_gradients_everywhere(size: int) -> None:
    """Where images contradict each other, too, whose contrast terms are negative; with any number of scales."""
    torch.manual_seed(0)
    other = torch.rand(1, 1, size, size, dtype=torch.float64)
    one = (1 - other).requires_grad_()
    found = multiscale_ssim(one, other)
    assert 0 < found.item() < 0.3
    (gradient,) = torch.autograd.grad(found.sum(), one)
    assert gradient.isfinite().all()
    if size == 11:
        near = (0.8 * other + 0.1 * torch.rand_like(other)).requires_grad_()
        assert torch.autograd.gradcheck(lambda image: multiscale_ssim(image, other), (near,))


def test_ms_ssim_takes_the_place_of_the_distortion() -> None:
    config = compose_config("data=glyphs", "model=mlp", "model/objective=ms_ssim", "model.objective.weight=30")
    model = instantiate(config.model, _convert_="all").double()
    images = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    terms, z, _ = seeded(model.objective, model, images)
    decoded = model.decode(z)
    torch.testing.assert_close(terms["loss"], terms["rate"] + 30 * (1 - multiscale_ssim(decoded.mean, images)))
    torch.testing.assert_close(terms["distortion"], -decoded.log_prob(images))
    with pytest.raises(ValueError, match="MSSSIM needs images of at least 11 × 11 pixels, got 10"):
        multiscale_ssim(images[..., :10], images[..., :10])


def test_ms_ssim_has_32_bits_under_mixed_precision() -> None:
    torch.manual_seed(0)
    images = torch.rand(2, 1, 28, 28)
    with torch.autocast("cpu", torch.bfloat16):
        found = multiscale_ssim(images, images.flip(0))
    assert torch.equal(found, multiscale_ssim(images, images.flip(0)))
