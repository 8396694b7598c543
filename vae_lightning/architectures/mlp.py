"""Fully connected networks, as in Kingma and Welling (2014), https://arxiv.org/abs/1312.6114.

Without hidden layers they are linear maps: with normal pixels, the linear VAE, whose optimum is that of probabilistic
PCA (Lucas et al. 2019, https://arxiv.org/abs/1911.02469).
"""

from collections.abc import Sequence
from math import prod
from typing import Literal

from torch import Tensor, nn
from torch.distributions import Distribution

from ..posteriors import GaussianHead, Head

__all__ = ["MLPClassifier", "MLPDecoder", "MLPEncoder"]

Activation = Literal["relu", "tanh", "gated"]
Initialisation = Literal["pytorch", "glorot", "he"]

# With how many inputs they need for each output: gated linear units multiply one half by the sigmoid of the other.
ACTIVATIONS = {"relu": (nn.ReLU, 1), "tanh": (nn.Tanh, 1), "gated": (nn.GLU, 2)}
INITIALISATIONS = {"pytorch": None, "glorot": nn.init.xavier_uniform_, "he": nn.init.kaiming_normal_}


class MLPEncoder(nn.Module):
    """Hidden layers, and the posterior's head.

    Args:
        image_shape: `(C, H, W)`.
        latent_dim: dimension of z.
        hidden: units of each hidden layer, from the image inwards; an empty list for none.
        posterior: makes the posterior's head; see `vae_lightning.posteriors`.
        activation: of the hidden layers: `relu`, `tanh`, or `gated` (Dauphin et al. 2017, linear units times the
            sigmoid of others, https://arxiv.org/abs/1612.08083).
        initialisation: of their weights: `pytorch` for its own; `glorot`, uniform with variance 2/(inputs + outputs)
            (Glorot and Bengio 2010); `he`, normal with variance 2/inputs (He et al. 2015). With the last two, biases
            start at 0. The head has its own.

    Raises:
        ValueError: for an unknown activation or initialisation, or `hidden` that is not a list.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (512, 256),
        posterior: Head = GaussianHead,
        activation: Activation = "relu",
        initialisation: Initialisation = "pytorch",
    ) -> None:
        super().__init__()
        self.trunk = _hidden_layers(prod(image_shape), hidden, activation)
        _initialise(self.trunk, initialisation)
        self.head = posterior([prod(image_shape), *hidden][-1], latent_dim)

    def forward(self, x: Tensor) -> Distribution:
        return self.head(self.trunk(x.flatten(1)))


class MLPDecoder(nn.Module):
    """Hidden layers, and a linear map to the raw parameters.

    Args:
        image_shape: `(C, H, W)` of the raw parameters.
        latent_dim: dimension of z.
        hidden: units of each hidden layer, from the code outwards; an empty list for none.
        activation: of the hidden layers; see `MLPEncoder`.
        initialisation: of all layers; see `MLPEncoder`.

    Raises:
        ValueError: as `MLPEncoder`.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        latent_dim: int,
        hidden: Sequence[int] = (256, 512),
        activation: Activation = "relu",
        initialisation: Initialisation = "pytorch",
    ) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.trunk = _hidden_layers(latent_dim, hidden, activation)
        self.pixels = nn.Linear([latent_dim, *hidden][-1], prod(image_shape))
        self.initialisation = initialisation
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws the parameters of all layers as `initialisation` says, after PyTorch has drawn its own."""
        _initialise(self, self.initialisation)

    def forward(self, z: Tensor) -> Tensor:
        return self.pixels(self.trunk(z)).view(*z.shape[:-1], *self.image_shape)


class MLPClassifier(nn.Module):
    """Hidden layers with ReLU, and a linear map to the logits of classes.

    Args:
        image_shape: `(C, H, W)`.
        classes: number of classes.
        hidden: units of each hidden layer, from the image inwards; an empty list for none.
    """

    def __init__(self, image_shape: Sequence[int], classes: int, hidden: Sequence[int] = (500,)) -> None:
        super().__init__()
        self.trunk = _hidden_layers(prod(image_shape), hidden)
        self.logits = nn.Linear([prod(image_shape), *hidden][-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.trunk(x.flatten(1)))


def _hidden_layers(features: int, hidden: Sequence[int], activation: Activation = "relu") -> nn.Sequential:
    if not isinstance(hidden, Sequence) or isinstance(hidden, str):
        raise ValueError(f"hidden: must be a list of sizes, got {hidden}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation: must be one of {', '.join(ACTIVATIONS)}, got {activation}")
    function, times = ACTIVATIONS[activation]
    layers = nn.Sequential()
    for units in hidden:
        layers += nn.Sequential(nn.Linear(features, times * units), function())
        features = units
    return layers


def _initialise(module: nn.Module, initialisation: Initialisation) -> None:
    """Draws the weights of a module's linear layers, and sets their biases to 0."""
    if initialisation not in INITIALISATIONS:
        raise ValueError(f"initialisation: must be one of {', '.join(INITIALISATIONS)}, got {initialisation}")
    draw = INITIALISATIONS[initialisation]
    for layer in module.modules():
        if draw and isinstance(layer, nn.Linear):
            draw(layer.weight)
            nn.init.zeros_(layer.bias)
