"""The contract of an objective, and what it may ask of a model."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, Protocol

from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from ..data.batch import Batch

__all__ = ["Model", "Objective", "Player", "Terms"]

Terms = dict[str, Tensor]


class Model(Protocol):
    """The part of a model that objectives may use; `vae_lightning.vae.VAE` implements it."""

    @property
    def encoder(self) -> nn.Module: ...

    @property
    def decoder(self) -> nn.Module: ...

    @property
    def likelihood(self) -> nn.Module: ...

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution: ...

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution: ...

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution: ...


class Player(NamedTuple):
    """A module that is trained to minimise its own term: an objective's discriminator, or a part of the model.

    Attributes:
        module: the module; the model's optimizer skips its parameters. A part of the model, such as the encoder, is
            known from `check`.
        optimizer: makes an optimizer from parameters; None for one like the model's.
    """

    module: nn.Module
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None


class Objective(nn.Module):
    """Base class of training objectives. Subclasses override `forward`, and the other methods as needed.

    Attributes:
        conditional: whether it needs labels itself, besides handing them to the model.
        infers_labels: whether it gives the model a label for images whose own is hidden, which is −1.
    """

    conditional = False
    infers_labels = False

    def forward(self, model: Model, batch: Batch) -> Terms:
        """Returns the terms of a batch by name, each `(B,)`: per image, in nats, summed over pixels and dimensions.

        (Taking a mean over either would weight the terms by image or code size, and runs with different latent
        dimensions would no longer minimise the same quantity.)

        - `loss` is minimised;
        - `distortion` is −log p(x|z) for a posterior sample z, an estimate of −E_q log p(x|z);
        - `rate` is KL(q(z|x) ‖ p(z)), estimated from the same sample if it has no closed form;
        - other terms are logged, printed and reported under their names. Those of `players` are minimised as well.

        This method must not read anything back from the device.

        Args:
            model: the whole model, so that multi-sample bounds are possible.
            batch: images, and labels if the data have them.
        """
        raise NotImplementedError

    def check(self, model: Model) -> None:
        """Raises `ValueError` if the objective cannot train this model; called when the model is built."""

    def advance(self) -> None:
        """Called after every optimizer step, for objectives that change during training."""

    def players(self) -> Mapping[str, Player]:
        """Returns the modules with their own optimizers, by the name of the term that each minimises.

        The gradients of all terms come from one forward pass, each with respect to its own parameters only, before any
        optimizer steps.
        """
        return {}
