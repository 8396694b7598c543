"""The contract that every architecture in conf/model keeps, and the chapter's numbers for its own."""

import copy
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from shared import compose_config
from torch import nn

from vae_lightning.architectures.conv import ConvDecoder, SpreadPixel
from vae_lightning.architectures.mlp import MLPDecoder, MLPEncoder
from vae_lightning.config import CONFIGURATION
from vae_lightning.data.batch import Batch
from vae_lightning.posteriors import GaussianHead

ARCHITECTURES = sorted(path.stem for path in (CONFIGURATION / "model").glob("[!_]*.yaml"))
SHAPES = [(channels, side, side) for channels in (1, 3) for side in (28, 32, 64)]


def build(architecture: str, shape: tuple[int, ...], latent_dim: int = 5) -> nn.Module:
    options = [f"model={architecture}", f"data.image_shape=[{','.join(map(str, shape))}]"]
    return instantiate(compose_config(*options, f"model.latent_dim={latent_dim}").model, _convert_="all")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_contract_with_several_parameters_per_pixel(architecture: str) -> None:
    """The decoder is made for as many as the likelihood asks for; what is shown is an image."""
    options = [f"model={architecture}", "model/likelihood=logistic_mixture", "model.likelihood.components=4"]
    model = instantiate(compose_config(*options, "data.image_shape=[3,16,24]").model, _convert_="all")
    images = (torch.rand(2, 3, 16, 24) * 255).round() / 255
    assert model.decoder(torch.randn(4, 2, 2)).shape == (4, 2, 40, 16, 24)
    assert model.reconstruct(images).shape == images.shape
    model.objective(model, Batch(images))["loss"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_contract(architecture: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build(architecture, shape)
    images = torch.rand(3, *shape)

    posterior = model.encode(images)
    assert posterior.batch_shape == (3,)
    assert posterior.event_shape == (5,)
    assert model.decoder(posterior.mean).shape == (3, *shape)
    assert model.decoder(torch.randn(4, 2, 5)).shape == (4, 2, *shape)

    terms = model.objective(model, Batch(images))
    assert {term.shape for term in terms.values()} == {torch.Size([3])}
    terms["loss"].mean().backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []

    # What is saved loads without unpickling anything but tensors, and gives the same model.
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = copy.deepcopy(model)
    for parameter in other.parameters():
        nn.init.normal_(parameter)
    other.load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert torch.equal(model.eval().reconstruct(images), other.eval().reconstruct(images))


@pytest.mark.parametrize(
    ("latent_dim", "whole", "heads", "decoder"), [(2, 829_812, 3_588, 528_360), (128, 1_084_080, 229_632, 556_584)]
)
def test_the_chapters_network_has_its_number_of_parameters(
    latent_dim: int, whole: int, heads: int, decoder: int
) -> None:
    model = build("conv", (1, 28, 28), latent_dim)

    def count(module: nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert count(model) == whole
    assert count(model.encoder.trunk) == 297_864
    assert count(model.encoder.head) == heads
    assert count(model.decoder) == decoder


def test_the_chapters_decoder_grows_as_its_table_says() -> None:
    decoder = ConvDecoder((1, 28, 28), latent_dim=2)
    sizes = []
    for layer in decoder.trunk:
        if isinstance(layer, nn.ConvTranspose2d):
            assert layer.bias is None
            layer.register_forward_hook(lambda _, __, output: sizes.append(tuple(output.shape[1:])))
    decoder(torch.zeros(1, 2))
    assert sizes == [(112, 4, 4), (56, 8, 8), (28, 14, 14), (1, 28, 28)]


def test_the_first_transposed_convolution_is_one() -> None:
    """It is computed as a matrix product; PyTorch's own algorithm gives the same."""
    layer = SpreadPixel(6, 5, (4, 3)).double()
    pixels = torch.randn(7, 6, 1, 1, dtype=torch.float64)
    torch.testing.assert_close(layer(pixels), nn.functional.conv_transpose2d(pixels, layer.weight))


@pytest.mark.parametrize(("side", "extra"), [(28, []), (32, []), (64, [224]), (128, [224, 224])])
@pytest.mark.parametrize("channels", [1, 3])
def test_conv_has_a_stage_more_for_images_of_twice_the_size(channels: int, side: int, extra: list[int]) -> None:
    """And no layer of it grows with the image but the first and the last, which see its channels."""
    model, widths = build("conv", (channels, side, side), latent_dim=128), [28, 56, 112, 224, *extra]
    convolutions = [layer for layer in model.encoder.trunk if isinstance(layer, nn.Conv2d)]
    spread, *doubling = [layer for layer in model.decoder.trunk if isinstance(layer, nn.ConvTranspose2d)]
    assert [layer.out_channels for layer in convolutions] == widths
    assert [layer.in_channels for layer in (spread, *doubling)] == widths[::-1]
    assert spread.weight.shape[2:] == (4, 4)
    assert model.encoder.head.mean.in_features == 224 * 2**2
    images = torch.rand(2, channels, side, side)
    assert model.decoder(model.encode(images).mean).shape == images.shape
    assert sum(parameter.numel() for parameter in model.parameters()) < 3_700_000


@pytest.mark.parametrize("sides", [(6, 6), (8, 8), (10, 10), (16, 16), (16, 18), (6, 18), (28, 8)], ids=str)
def test_conv_of_small_images_leaves_batch_norm_several_pixels_of_a_single_image(sides: tuple[int, int]) -> None:
    model = build("conv", (1, *sides), latent_dim=2).train()
    model.objective(model, Batch(torch.rand(1, 1, *sides)))["loss"].mean().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_conv_of_an_older_run_keeps_its_four_stages() -> None:
    """Its configuration has no `stages`."""
    decoder = ConvDecoder((3, 64, 64), latent_dim=2)
    assert [layer.weight.shape[2:] for layer in decoder.trunk if isinstance(layer, SpreadPixel)] == [(8, 8)]


def test_conv_has_as_many_stages_as_it_is_told() -> None:
    decoder = ConvDecoder((3, 64, 96), latent_dim=2, width=4, stages=3)
    assert decoder(torch.zeros(1, 2)).shape == (1, 3, 64, 96)
    assert [layer.weight.shape[2:] for layer in decoder.trunk if isinstance(layer, SpreadPixel)] == [(16, 24)]
    for stages in (0, 1):
        with pytest.raises(ValueError, match=f"stages: .* got {stages}"):
            ConvDecoder((1, 28, 28), latent_dim=2, stages=stages)
    with pytest.raises(ValueError, match="even sides of at least 34 pixels, got 28"):
        ConvDecoder((1, 28, 28), latent_dim=2, stages=6)


def test_conv_serves_sides_that_differ_and_refuses_odd_ones() -> None:
    assert ConvDecoder((1, 20, 36), latent_dim=2)(torch.zeros(1, 2)).shape == (1, 1, 20, 36)
    for side in (27, 8):
        with pytest.raises(ValueError, match=f"image_shape: .* got {side}"):
            ConvDecoder((1, side, side), latent_dim=2)


def test_the_posterior_has_the_variance_that_its_head_gives() -> None:
    """The chapter's second output is log σ²."""
    head = GaussianHead(5, 3).double()
    features = torch.randn(7, 5, dtype=torch.float64)
    posterior = head(features)
    assert torch.allclose(posterior.mean, head.mean(features))
    assert torch.allclose(posterior.variance.log(), head.log_variance(features))


@pytest.mark.parametrize("activation", ["relu", "tanh", "gated"])
def test_mlp_computes_what_its_activation_says(activation: str) -> None:
    torch.manual_seed(0)
    decoder = MLPDecoder((1, 2, 3), 4, hidden=[5, 7], activation=activation).double()
    z = torch.randn(8, 4, dtype=torch.float64)
    x = z
    for layer in (layer for layer in decoder.trunk if isinstance(layer, nn.Linear)):
        y = x @ layer.weight.T + layer.bias
        x = {
            "relu": lambda y: y.clamp(min=0),
            "tanh": lambda y: (y.exp() - (-y).exp()) / (y.exp() + (-y).exp()),
            "gated": lambda y: y.chunk(2, -1)[0] / (1 + (-y.chunk(2, -1)[1]).exp()),
        }[activation](y)
    assert x.shape == (8, 7)
    torch.testing.assert_close(decoder(z).flatten(1), x @ decoder.pixels.weight.T + decoder.pixels.bias)


@pytest.mark.parametrize(("initialisation", "variance"), [("glorot", 2 / (400 + 300)), ("he", 2 / 400)])
def test_mlp_is_initialised_as_told(initialisation: str, variance: float) -> None:
    torch.manual_seed(0)
    encoder = MLPEncoder((1, 20, 20), 2, hidden=[300], initialisation=initialisation)
    layer = encoder.trunk[0]
    assert layer.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert not layer.bias.any()
    assert encoder.head.mean.bias.abs().min() > 0  # the head has its own
    decoder = MLPDecoder((1, 20, 15), 2, hidden=[400], initialisation=initialisation)
    assert decoder.pixels.weight.var().item() == pytest.approx(variance, rel=0.02)
    assert not decoder.pixels.bias.any()


def test_mlp_without_hidden_layers_is_linear() -> None:
    torch.manual_seed(0)
    model = build("linear", (1, 6, 4)).double()
    x, y = torch.rand(2, 3, 1, 6, 4, dtype=torch.float64)
    middle = model.encode((x + y) / 2).mean
    torch.testing.assert_close(middle, (model.encode(x).mean + model.encode(y).mean) / 2)
    assert model.decoder(middle).shape == x.shape
    assert [name for name, _ in model.named_parameters() if "trunk" in name] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"activation": "sine"}, "activation: must be one of relu, tanh, gated, got sine"),
        ({"initialisation": "zero"}, "initialisation: must be one of pytorch, glorot, he, got zero"),
        ({"hidden": 5}, "hidden: must be a list of sizes, got 5"),
    ],
)
def test_mlp_says_what_it_has(options: dict, message: str) -> None:
    for part in (MLPEncoder, MLPDecoder):
        with pytest.raises(ValueError, match=message):
            part((1, 2, 3), 4, **options)
