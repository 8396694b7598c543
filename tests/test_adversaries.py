"""FactorVAE, the adversarial autoencoder and VAE-GAN against their formulas, in float64."""

import pytest
import torch
from hydra.utils import instantiate
from shared import TINY, compose_config
from small_models import D, SmallModel, seeded, small_images, small_model
from torch import Tensor
from torch.distributions import MultivariateNormal
from torch.nn.functional import binary_cross_entropy_with_logits, conv2d, leaky_relu

from vae_lightning.data.batch import Batch
from vae_lightning.objectives import VAEGAN, Adversarial, Factor


@pytest.fixture
def model() -> SmallModel:
    return small_model()


@pytest.fixture
def images() -> Tensor:
    return small_images()


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    return binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)), reduction="none")


def test_factor_is_the_formula(model: SmallModel, images: Tensor) -> None:
    objective = Factor(D, gamma=7.0, units=5, layers=2).double()
    terms, z, _ = seeded(objective, model, images)
    order = torch.rand_like(z).argsort(0)  # the seed stands where the objective drew them
    first, _, second, _, last = objective.discriminator.layers

    def logit(code: Tensor) -> Tensor:
        hidden = leaky_relu(second.weight @ leaky_relu(first.weight @ code + first.bias, 0.2) + second.bias, 0.2)
        return (last.weight @ hidden + last.bias)[0]

    for i in range(len(images)):
        log_ratio = logit(z[i])
        mixed = torch.stack([z[order[i, k], k] for k in range(D)])
        torch.testing.assert_close(terms["total_correlation"][i], log_ratio)
        told = cross_entropy(log_ratio, real=True) + cross_entropy(logit(mixed), real=False)
        torch.testing.assert_close(terms["discriminator_loss"][i], told)
    expected = terms["distortion"] + terms["rate"] + 7 * terms["total_correlation"]
    torch.testing.assert_close(terms["loss"], expected)


def test_the_discriminator_of_factor_learns_the_total_correlation(model: SmallModel, images: Tensor) -> None:
    """Of a normal distribution with unit variances it is −½ log of the determinant of its covariance."""
    covariance = torch.tensor([[1, 0.8, 0.0], [0.8, 1, 0.0], [0.0, 0.0, 1]], dtype=torch.float64)
    model.encode = lambda x, labels=None: MultivariateNormal(torch.zeros(len(x), D).double(), covariance)
    torch.manual_seed(0)
    objective = Factor(D, units=32, layers=2).double()
    optimizer = torch.optim.Adam(objective.parameters(), 0.01)
    many, found = Batch(images[:1].expand(512, -1, -1, -1)), []
    for _ in range(300):
        terms = objective(model, many)
        optimizer.zero_grad()
        terms["discriminator_loss"].mean().backward()
        optimizer.step()
        found.append(terms["total_correlation"].mean().item())
    assert found[0] == pytest.approx(0, abs=0.3)
    assert sum(found[-100:]) / 100 == pytest.approx(-0.5 * covariance.det().log().item(), abs=0.06)


def test_adversarial_is_the_formula(model: SmallModel, images: Tensor) -> None:
    objective = Adversarial(D, weight=3.0, units=5).double()
    terms, z, _ = seeded(objective, model, images)
    drawn = model.prior.distribution().sample((len(images),))
    of_codes, of_prior = (objective.discriminator.layers(points).squeeze(1) for points in (z, drawn))
    torch.testing.assert_close(terms["loss"], terms["distortion"] + 3 * cross_entropy(of_codes, real=True))
    told = cross_entropy(of_codes, real=False) + cross_entropy(of_prior, real=True)
    torch.testing.assert_close(terms["discriminator_loss"], told)


def test_vae_gan_is_the_formula(model: SmallModel, images: Tensor) -> None:
    objective = VAEGAN((1, 2, 3), gamma=0.3, width=2).double()
    terms, z, _ = seeded(objective, model, images)
    drawn = model.prior.distribution().sample((len(images),))

    def discriminator(x: Tensor) -> tuple[Tensor, Tensor]:
        first, _, second, *_ = objective.discriminator.features
        for layer in (first, second):
            x = leaky_relu(conv2d(x, layer.weight, layer.bias, stride=2, padding=1), 0.2)
        return x.flatten(1), x.flatten(1) @ objective.discriminator.logit.weight[0] + objective.discriminator.logit.bias

    shown = [model.decoder(codes).sigmoid().view_as(images) for codes in (z, drawn)]
    (real, of_real), (decoded, of_decoded), (_, of_drawn) = map(discriminator, (images, *shown))
    learned = ((real - decoded) ** 2).sum(1) / 2
    torch.testing.assert_close(terms["feature_distortion"], learned)
    torch.testing.assert_close(terms["encoder_loss"], terms["rate"] + learned)
    fooling = cross_entropy(of_decoded, real=True) + cross_entropy(of_drawn, real=True)
    torch.testing.assert_close(terms["loss"], terms["rate"] + 0.3 * learned + fooling)
    told = cross_entropy(of_real, real=True) + sum(cross_entropy(x, real=False) for x in (of_decoded, of_drawn))
    torch.testing.assert_close(terms["discriminator_loss"], told)
    p = shown[0]
    distortion = -(images * p.log() + (1 - images) * (1 - p).log()).sum((1, 2, 3))
    torch.testing.assert_close(terms["distortion"], distortion)


@pytest.mark.parametrize("shape", ["[1,28,28]", "[3,29,30]"])
def test_the_discriminator_of_vae_gan_takes_images_of_any_size(shape: str) -> None:
    config = compose_config("data=glyphs", "model=mlp", "model/objective=vae_gan", f"data.image_shape={shape}")
    model = instantiate(config.model, _convert_="all")
    channels, height, width = config.data.image_shape
    assert model.objective.discriminator(torch.rand(2, channels, height, width))[1].shape == (2,)


@pytest.mark.parametrize(
    ("objective", "players"),
    [
        ("piwae", {"encoder_loss": "encoder."}),
        ("factor", {"discriminator_loss": "objective.discriminator."}),
        ("adversarial", {"discriminator_loss": "objective.discriminator."}),
        ("vae_gan", {"encoder_loss": "encoder.", "discriminator_loss": "objective.discriminator."}),
    ],
)
def test_who_trains_what(objective: str, players: dict[str, str]) -> None:
    model = instantiate(compose_config(*TINY, f"model/objective={objective}").model, _convert_="all")
    assert model.minimised == ("loss", *players)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    main, *others = (
        {names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]}
        for optimizer in model.configure_optimizers()
    )
    for prefix, owned in zip(players.values(), others, strict=True):
        assert owned == {name for name in names.values() if name.startswith(prefix)}
    assert main == set(names.values()).difference(*others)
