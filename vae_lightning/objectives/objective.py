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
    """What an objective may ask of a model; `vae_lightning.vae.VAE` is one."""

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution: ...

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution: ...

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution: ...


class Player(NamedTuple):
    """A module that belongs to an objective and is trained to minimise a term of its own (a discriminator, say).

    Attributes:
        module: whose parameters these are; the model's optimizer leaves them out.
        optimizer: parameters to an optimizer; None for one like the model's.
    """

    module: nn.Module
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None


class Objective(nn.Module):
    """What training minimises. One of your own overrides `forward`, and the other methods where it needs them."""

    def forward(self, model: Model, batch: Batch) -> Terms:
        """Returns the terms of a batch by name, each `(B,)`: per image, in nats, summed over pixels and dimensions.

        (A mean over either would weigh the terms by the size of the image or of the code, and runs with different
        latent dimensions would no longer minimise the same thing.)

        - `loss` is what is minimised;
        - `distortion` is −log p(x|z) for a sample z of the posterior, an estimate of −E_q log p(x|z);
        - `rate` is KL(q(z|x) ‖ p(z)), estimated by the same sample where it has no closed form;
        - others are logged, printed and reported under their names. Those of `players` are minimised as well.

        It must not read anything back from the device.

        Args:
            model: the whole model, so that bounds with many samples fit as well.
            batch: images, and labels where the data have them.
        """
        raise NotImplementedError

    def check(self, model: Model) -> None:
        """Raises `ValueError` for a model that the objective cannot train; called when the model is made."""

    def advance(self) -> None:
        """Is called after every optimizer step: for objectives that change during training."""

    def players(self) -> Mapping[str, Player]:
        """Returns the modules with optimizers of their own, by the name of the term that each of them minimises.

        Gradients of all terms are taken from one forward pass, each over its own parameters alone, before any of the
        optimizers steps.
        """
        return {}
