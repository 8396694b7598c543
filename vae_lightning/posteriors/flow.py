"""What posteriors with flows have in common."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn
from torch.distributions import Transform

from ..distributions import Autoregressive, Flow
from ..rates import log_prob_of_each
from .functions import point
from .gaussian import GaussianHead

__all__ = ["FlowHead"]


class FlowHead(nn.Module):
    """q(z|x), the distribution of a Gaussian sample after autoregressive layers with the features as context.

    Layers and their networks are zuko's; see `vae_lightning.distributions`. A sample and its density take one pass
    through each network; the density of other codes takes latent_dim passes.

    Args:
        features: number of input features.
        latent_dim: dimension of z.
        transforms: number of layers, at least 1.
        hidden: units of each hidden layer of a layer's network.
        context: number of context features that are made from the features.
        univariate: what a layer does to each dimension; see `vae_lightning.distributions.Autoregressive`.
        shapes: of what it needs.
    """

    def __init__(
        self,
        features: int,
        latent_dim: int,
        transforms: int,
        hidden: Sequence[int],
        context: int,
        univariate: Callable[..., Transform],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.base = GaussianHead(features, latent_dim)
        self.context = nn.Sequential(nn.Linear(features, context), nn.ELU())
        self.layers = Autoregressive(latent_dim, context, transforms, hidden, univariate, shapes)

    def forward(self, features: Tensor) -> Flow:
        """Returns the posterior for features `(B, features)`: batch `(B,)`, event `(latent_dim,)`."""
        base = self.base(features)
        return Flow(base, self.layers(self.context(features).to(base.mean.dtype)))


@point.register
def _(posterior: Flow) -> Tensor:
    return posterior.transform(point(posterior.base))


@log_prob_of_each.register
def _(posterior: Flow, z: Tensor) -> None:
    return None
