"""Priors p(z): modules that return a distribution over codes. `Prior` is their contract."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from .latent_spaces import Euclidean, LatentSpace
from .posteriors.ladder import Ladder, TopDown

__all__ = ["LadderPrior", "Prior", "StandardNormal", "VampPrior"]


class Prior(nn.Module):
    """Base class of priors, which may be fixed, learned, a flow, or share weights with the model.

    Attributes:
        conditional: whether `distribution` takes labels.
        latent_space: class of the latent space, called with the latent dimension.
    """

    conditional = False
    latent_space: Callable[[int], LatentSpace] = Euclidean

    def distribution(self) -> Distribution:
        """Returns p(z): batch `()`, event `(latent_dim,)`, with `sample` and `log_prob`.

        A conditional prior returns p(z|y) with batch `(B,)` for labels `(B,)`, and p(z) for None.
        """
        raise NotImplementedError

    def attach(self, encoder: nn.Module) -> None:
        """Called once with the model's encoder, for priors built from the posterior."""

    def variations(self, count: int) -> Mapping[str, Tensor]:
        """Returns rows of `count` codes `(count, latent_dim)` that share a part of the code, by what they share.

        They are drawn as a figure of what each part decides. By default there are none.
        """
        return {}


class StandardNormal(Prior):
    """N(0, I), without parameters.

    Args:
        latent_dim: dimension of z.
    """

    zeros: Tensor
    ones: Tensor

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.register_buffer("zeros", torch.zeros(latent_dim), persistent=False)
        self.register_buffer("ones", torch.ones(latent_dim), persistent=False)

    def distribution(self) -> Independent:
        return Independent(Normal(self.zeros, self.ones, validate_args=False), 1, validate_args=False)


class VampPrior(Prior):
    """VampPrior, the mixture of posteriors of learned pseudo-inputs u_k: p(z) = 1/K Σ_k q(z|u_k).

    Pseudo-inputs are encoded with batch norm's running statistics, even in training: they are not images and must not
    enter the statistics used to evaluate images.

    Args:
        image_shape: `(C, H, W)`.
        components: K, at least 1.

    Source: Tomczak and Welling (2018), equation 9, https://arxiv.org/abs/1705.07120.
    """

    uniform: Tensor

    def __init__(self, image_shape: Sequence[int], components: int = 100) -> None:
        super().__init__()
        if components < 1:
            raise ValueError(f"components: must be at least 1, got {components}")
        self.pseudo_inputs = nn.Parameter(torch.randn(components, *image_shape) - 1)
        self.register_buffer("uniform", torch.zeros(components), persistent=False)
        self._encoder: tuple[nn.Module, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the encoder. It remains the model's: the tuple keeps it out of this module's parameters."""
        self._encoder = (encoder,)

    def distribution(self) -> MixtureSameFamily:
        (encoder,) = self._encoder
        with _running_statistics(encoder):
            components = encoder(self.pseudo_inputs.sigmoid())
        weights = Categorical(logits=self.uniform, validate_args=False)
        return MixtureSameFamily(weights, components, validate_args=False)


class LadderPrior(Prior):
    """The prior of a ladder of latent variables, whose networks are those of the model's `LadderHead`.

    Source: Sønderby et al. (2016), equations 1 to 3, https://arxiv.org/abs/1602.02282.
    """

    def __init__(self) -> None:
        super().__init__()
        self._top_down: tuple[TopDown, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Sets the networks, which remain the encoder's.

        Raises:
            ValueError: if the encoder has no `LadderHead`.
        """
        self._top_down = tuple(module for module in encoder.modules() if isinstance(module, TopDown))
        if len(self._top_down) != 1:
            raise ValueError("prior: ladder needs the ladder's posterior; choose model/posterior=ladder")

    def distribution(self) -> Ladder:
        (top_down,) = self._top_down
        return Ladder(top_down)

    def variations(self, count: int) -> Mapping[str, Tensor]:
        """Returns codes whose highest levels are the same, from all levels but the lowest to the highest alone."""
        ladder = self.distribution()
        sizes = ladder.top_down.sizes
        from_the_top = ladder.sample().split(sizes)[::-1]
        rows = {}
        for fixed in reversed(range(1, len(sizes))):
            given = [part.expand(count, -1) for part in from_the_top[:fixed]]
            lowest = len(sizes) - fixed + 1
            name = f"level {lowest}" if fixed == 1 else f"levels {lowest} to {len(sizes)}"
            rows[f"same {name}"] = ladder.descend(torch.normal, given)
        return rows


@contextmanager
def _running_statistics(module: nn.Module) -> Iterator[None]:
    norms = [
        layer for layer in module.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training
    ]
    for layer in norms:
        layer.eval()
    try:
        yield
    finally:
        for layer in norms:
            layer.train()
