"""The importance-weighted bound for the decoder, and the mean of several of fewer samples for the encoder."""

from collections.abc import Mapping

from torch import nn

from ..data.batch import Batch
from .importance import importance_bound, importance_terms
from .miwae import MIWAE
from .objective import Model, Player, Terms

__all__ = ["PIWAE"]


class PIWAE(MIWAE):
    """The decoder minimises the negative IWAE bound of M·K samples, the encoder the mean of M such bounds of K each.

    Both bounds come from the same samples. `loss` is the decoder's, and that of a prior's own parameters;
    `encoder_loss` the encoder's, to which a prior such as `ladder` belongs, and which has an optimizer of its own, like
    the model's.

    Args:
        bounds: M, at least 1; 1 is IWAE.
        samples: K, at least 1.

    Raises:
        ValueError: for fewer than one bound or sample.

    Source: Rainforth et al. (2018), section 5, https://arxiv.org/abs/1802.04537.
    """

    def __init__(self, bounds: int = 4, samples: int = 4) -> None:
        super().__init__(bounds, samples)
        self._encoder: tuple[nn.Module, ...] = ()

    def check(self, model: Model) -> None:
        self._encoder = (model.encoder,)  # it remains the model's: the tuple keeps it out of this module's parameters

    def players(self) -> Mapping[str, Player]:
        return {"encoder_loss": Player(*self._encoder)}

    def forward(self, model: Model, batch: Batch) -> Terms:
        distortion, rate = importance_terms(model, batch, self.bounds * self.samples)
        log_weights = -distortion - rate
        of_encoder = importance_bound(log_weights.unflatten(0, (self.bounds, self.samples)), 1).mean(0)
        return {
            "loss": importance_bound(log_weights),
            "distortion": distortion.mean(0),
            "rate": rate.mean(0),
            "encoder_loss": of_encoder,
        }
