"""The type of a posterior's head, and the latent space of an encoder with one."""

from collections.abc import Callable

from torch import nn

from ..latent_spaces import Euclidean, LatentSpace

__all__ = ["Head", "latent_space_of"]

Head = Callable[[int, int], nn.Module]


def latent_space_of(encoder: nn.Module) -> type[LatentSpace]:
    """Returns the latent space that an encoder or a part of it names in `latent_space`; by default R^d."""
    named = (module.latent_space for module in encoder.modules() if hasattr(module, "latent_space"))
    return next(named, Euclidean)  # type: ignore[return-value]
