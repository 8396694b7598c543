"""Fully connected networks, as in Kingma and Welling (2014), https://arxiv.org/abs/1312.6114."""

from collections.abc import Sequence
from math import prod

from torch import Tensor, nn
from torch.distributions import Distribution

from ..posteriors import GaussianHead, Head

__all__ = ["MLPClassifier", "MLPDecoder", "MLPEncoder"]


class MLPEncoder(nn.Module):
    """Hidden layers with ReLU, and the posterior's head.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: dimension of z.
        hidden: units of each hidden layer, from the image inwards; at least one layer.
        posterior: makes the posterior's head; see `vae_lightning.posteriors`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (512, 256),
        posterior: Head = GaussianHead,
    ) -> None:
        super().__init__()
        self.trunk = _hidden_layers(prod(image_shape), hidden)
        self.head = posterior(hidden[-1], latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.head(self.trunk(x.flatten(1)))


class MLPDecoder(nn.Module):
    """Hidden layers with ReLU, and a linear map to the raw parameters.

    Args:
        image_shape: `(C, H, W)` of the raw parameters.
        latent_dim: dimension of z.
        hidden: units of each hidden layer, from the code outwards; at least one layer.
    """

    def __init__(self, image_shape: Sequence[int], latent_dim: int, hidden: Sequence[int] = (256, 512)) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.trunk = _hidden_layers(latent_dim, hidden)
        self.pixels = nn.Linear(hidden[-1], prod(image_shape))

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels(self.trunk(z)).view(*z.shape[:-1], *self.image_shape)


class MLPClassifier(nn.Module):
    """Hidden layers with ReLU, and a linear map to the logits of classes.

    Args:
        image_shape: `(C, H, W)`.
        classes: number of classes.
        hidden: units of each hidden layer, from the image inwards; at least one layer.
    """

    def __init__(self, image_shape: Sequence[int], classes: int, hidden: Sequence[int] = (500,)) -> None:
        super().__init__()
        self.trunk = _hidden_layers(prod(image_shape), hidden)
        self.logits = nn.Linear(hidden[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.trunk(x.flatten(1)))


def _hidden_layers(features: int, hidden: Sequence[int]) -> nn.Sequential:
    if not isinstance(hidden, Sequence) or not hidden:
        raise ValueError(f"hidden: must be a list of at least one size, got {hidden}")
    layers = nn.Sequential()
    for units in hidden:
        layers += nn.Sequential(nn.Linear(features, units), nn.ReLU())
        features = units
    return layers
