"""VAE-GAN: images are compared by what a discriminator sees in them."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional

from ..data.batch import Batch
from ..rates import rate
from .checks import at_least, require_means_only
from .discriminator import MakesOptimizer, telling_apart, wide
from .mmd import prior_samples
from .objective import Model, Objective, Player, Terms

__all__ = ["VAEGAN", "ImageCritic"]


class ImageCritic(nn.Module):
    """A convolutional discriminator of images `(B, C, H, W)`: features `(B, F)`, and a logit `(B,)`.

    Args:
        image_shape: `(C, H, W)`.
        width: channels of the first of two layers, each of which halves the image.

    Raises:
        ValueError: for a width below 1.
    """

    def __init__(self, image_shape: Sequence[int], width: int) -> None:
        super().__init__()
        channels, height, breadth = image_shape
        at_least("width", width, 1)
        self.features = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.logit = nn.Linear(2 * width * -(-height // 4) * -(-breadth // 4), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.features(x)
        return wide(features), wide(self.logit(features).squeeze(-1))


class VAEGAN(Objective):
    """rate and a learned distortion, and images that a discriminator D takes for real.

    The learned distortion of a reconstruction x̃ is ½‖f(x) − f(x̃)‖², with f the features in D's last hidden layer: up
    to a constant −log N(f(x); f(x̃), I). It takes the place of −log p(x|z), which no part of the model minimises but
    which remains the term `distortion`, as `feature_distortion` is not comparable between runs.

    Three players take steps at once:

    - the encoder, to which a prior such as `ladder` belongs, minimises `encoder_loss` = rate + learned distortion;
    - the decoder minimises `loss` = rate + γ·learned distortion − log D(x̃) − log D(x'), with x' decoded from a sample
      of the prior (the rate, which no decoder moves, trains a prior with parameters of its own);
    - D minimises `discriminator_loss` = −log D(x) − log(1 − D(x̃)) − log(1 − D(x')).

    The decoder's part is the non-saturating one.

    Args:
        image_shape: `(C, H, W)`.
        gamma: γ, at least 0: what the decoder gives for likeness to the image, against looking real.
        width: channels of the discriminator's first layer.
        optimizer: makes the discriminator's optimizer; None for one like the model's.

    Raises:
        ValueError: for an option out of range; for a likelihood with parameters, which nothing would train.

    Source: Larsen et al. (2016), equations 6 to 8 and algorithm 1, https://arxiv.org/abs/1512.09300.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        gamma: float = 1.0,
        width: int = 32,
        optimizer: MakesOptimizer | None = None,
    ) -> None:
        super().__init__()
        self.gamma = at_least("gamma", gamma, 0)
        self.discriminator = ImageCritic(image_shape, width)
        self.optimizer = optimizer
        self._encoder: tuple[nn.Module, ...] = ()

    def check(self, model: Model) -> None:
        require_means_only(self, model)
        self._encoder = (model.encoder,)  # it remains the model's: the tuple keeps it out of this module's parameters

    def players(self) -> Mapping[str, Player]:
        return {
            "encoder_loss": Player(*self._encoder),
            "discriminator_loss": Player(self.discriminator, self.optimizer),
        }

    def forward(self, model: Model, batch: Batch) -> Terms:
        posterior, prior = model.encode(batch.images, batch.labels), model.prior_distribution(batch.labels)
        z = posterior.rsample()
        decoded = model.decode(z, batch.labels)
        found = rate(posterior, prior, z)
        drawn = model.decode(prior_samples(prior, z), batch.labels).mean
        seen, real = self.discriminator(batch.images)
        of_decoded, reconstructed = self.discriminator(decoded.mean)
        _, sampled = self.discriminator(drawn)
        learned = 0.5 * (seen - of_decoded).square().sum(1)
        fooling = functional.softplus(-reconstructed) + functional.softplus(-sampled)
        return {
            "loss": found + self.gamma * learned + fooling,
            "distortion": -decoded.log_prob(batch.images),
            "rate": found,
            "feature_distortion": learned,
            "encoder_loss": found + learned,
            "discriminator_loss": telling_apart(real, reconstructed) + functional.softplus(sampled),
        }
