"""The contract of a prior."""

from collections.abc import Mapping

from torch import Tensor, nn
from torch.distributions import Distribution

from ..latent_spaces import Euclidean, LatentSpace
from ..posteriors import latent_space_of

__all__ = ["Prior", "agree"]


class Prior(nn.Module):
    """Base class of priors, which may be fixed, learned, a flow, or share weights with the model.

    Attributes:
        conditional: whether `distribution` takes labels.
        needs_all_labels: whether none of them may be hidden, which is −1.
        latent_space: class of the latent space, called with the latent dimension; see `vae_lightning.latent_spaces`.
    """

    conditional = False
    needs_all_labels = False
    latent_space: type[LatentSpace] = Euclidean

    def distribution(self) -> Distribution:
        """Returns p(z): batch `()`, event `(latent_dim,)`, with `sample` and `log_prob`.

        A conditional prior returns p(z|y) with batch `(B,)` for labels `(B,)`, and p(z) for None. A distribution of a
        new type is sampled at other temperatures than 1 if it registers itself with `tempered`.
        """
        raise NotImplementedError

    def attach(self, encoder: nn.Module) -> None:
        """Called once with the model's encoder; priors built from the posterior override it.

        Raises:
            ValueError: if the encoder's posterior lives on another latent space.
        """
        agree(type(self).__name__, self.latent_space, encoder)

    def variations(self, count: int) -> Mapping[str, Tensor]:
        """Returns rows of `count` codes `(count, latent_dim)` that share a part of the code, by what they share.

        They are drawn as a figure of what each part decides. By default there are none.
        """
        return {}


def agree(prior: str, space: type[LatentSpace], encoder: nn.Module) -> None:
    """Raises `ValueError` unless an encoder's posterior lives on a prior's latent space: only then there is a rate."""
    theirs = latent_space_of(encoder)
    if theirs is not space:
        raise ValueError(
            f"prior: {prior} is a density on {space.description}, but the posterior lives on {theirs.description}; "
            f"choose {theirs.prior}, or {space.posterior}"
        )
