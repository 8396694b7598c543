"""The contract that every architecture in conf/model keeps, and the chapter's numbers for its own."""

import copy
from pathlib import Path

import pytest
import torch
from conftest import compose_config
from hydra.utils import instantiate
from torch import nn

from vae_lightning.architectures.conv import ConvDecoder, SpreadPixel
from vae_lightning.posteriors import GaussianHead
from vae_lightning.config import CONFIGURATION

ARCHITECTURES = sorted(path.stem for path in (CONFIGURATION / "model").glob("[!_]*.yaml"))
SHAPES = [(channels, side, side) for channels in (1, 3) for side in (28, 32, 64)]


def build(architecture: str, shape: tuple[int, ...], latent_dim: int = 5) -> nn.Module:
    options = [f"model={architecture}", f"data.image_shape=[{','.join(map(str, shape))}]"]
    return instantiate(compose_config(*options, f"model.latent_dim={latent_dim}").model, _convert_="all")


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

    terms = model.objective(model, images)
    assert {term.shape for term in terms} == {torch.Size([3])}
    terms.loss.mean().backward()
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
