"""The variational autoencoder as a LightningModule: encode, decode, sample, reconstruct, train and evaluate."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn
from torch.distributions import Distribution
from torch.optim import Optimizer

from .conditioning import draw_labels, given, is_conditional
from .data.batch import Batch
from .engine.shards import batch_means
from .likelihoods import Likelihood
from .objectives import ELBO, Objective
from .posteriors import is_deterministic, point
from .priors import Prior

__all__ = ["VAE"]


class VAE(LightningModule):
    """p(x|z) p(z) with an amortised posterior q(z|x), built from interchangeable parts.

    An encoder, decoder or prior with the attribute `conditional = True` also receives labels: `(B,)`, −1 where one is
    hidden, or None if they are unknown.

    Args:
        latent_dim: dimension of z.
        encoder: maps images `(B, C, H, W)` to q(z|x); see `vae_lightning.architectures`.
        decoder: maps codes `(…, latent_dim)` to raw parameters `(…, C, H, W)`; see `vae_lightning.architectures`.
        likelihood: maps raw parameters to p(x|z); see `vae_lightning.likelihoods`.
        prior: p(z); see `vae_lightning.priors`.
        objective: what training minimises; see `vae_lightning.objectives`.
        optimizer: makes an optimizer from parameters.
        labels: makes encoder and decoder conditional; see `vae_lightning.architectures.conditional`.
        lr_scheduler: a learning-rate schedule in Lightning's format (`interval`, `frequency`, `monitor`), whose
            `scheduler` makes a scheduler from an optimizer.

    Logged metrics are per image, in nats. Under `val/` and `test/` they are `elbo`, `distortion` and `rate` (of a
    hierarchy also the rate of each level) of the standard one-sample bound, so that runs with different objectives can
    be compared; the objective's own `loss` and other terms; and the metrics of the likelihood.

    Raises:
        ValueError: if the objective does not support the prior.
    """

    def __init__(
        self,
        latent_dim: int,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: Likelihood,
        prior: Prior,
        objective: Objective,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        lr_scheduler: Mapping[str, Any] | None = None,
        labels: Callable[[nn.Module, nn.Module], tuple[nn.Module, nn.Module]] | None = None,
    ) -> None:
        super().__init__()
        self.labels = labels
        if labels:
            encoder, decoder = labels(encoder, decoder)
        prior.attach(encoder)
        self.latent_dim = latent_dim
        self.latent_space = prior.latent_space(latent_dim)
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.objective = objective
        self.make_optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        objective.check(self)

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        """Returns q(z|x) of images `(B, C, H, W)`: batch `(B,)`, event `(latent_dim,)`."""
        return self.encoder(x, *given(self.encoder, labels))

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        """Returns p(x|z) of codes `(…, latent_dim)`: batch `(…)`, event `(C, H, W)`."""
        raw = self.decoder(z, *given(self.decoder, labels))
        # 32 bits even under mixed precision: log p(x|z) is a sum over all pixels.
        return self.likelihood(raw.to(torch.promote_types(raw.dtype, torch.float32)))

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        """Returns p(z): batch `()`, event `(latent_dim,)`; batch `(B,)` for a conditional prior with labels `(B,)`."""
        return self.prior.distribution(*given(self.prior, labels))

    @property
    def conditional(self) -> bool:
        """Whether samples depend on labels, because the decoder or the prior is given them."""
        return is_conditional(self.decoder) or is_conditional(self.prior)

    @property
    def has_bound(self) -> bool:
        """Whether log p(x) has a bound: for all but deterministic encoders."""
        return not is_deterministic(self.encoder)

    def draw_labels(self, count: int) -> Tensor | None:
        """Returns labels `(count,)` of evenly likely classes; None if samples do not depend on them."""
        return draw_labels((self.decoder, self.prior), count, self.device)

    def sample(self, count: int, labels: Tensor | None = None) -> Tensor:
        """Returns means of p(x|z) `(count, C, H, W)` for codes drawn from the prior, given labels `(count,)` if any.

        A conditional model draws labels if there are none. Raises `ValueError` if there is not one for each sample.
        """
        labels = self.draw_labels(count) if labels is None else labels
        if labels is not None and len(labels) != count:
            raise ValueError(f"labels: must be {count}, one for each sample, got {len(labels)}")
        prior = self.prior_distribution(labels)
        z = prior.sample(() if prior.batch_shape else (count,))
        return self.decode(z, labels).mean

    def reconstruct(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Returns means of p(x|z) `(B, C, H, W)` at the posterior means (see `point`) of images `(B, C, H, W)`."""
        return self.decode(point(self.encode(x, labels)), labels).mean

    @property
    def minimised(self) -> tuple[str, ...]:
        """Names of the terms that are minimised, each by its own optimizer."""
        return ("loss", *self.objective.players())

    def configure_optimizers(self) -> Any:
        players = self.objective.players()
        theirs = {parameter for player in players.values() for parameter in player.module.parameters()}
        optimizers = [self.make_optimizer([parameter for parameter in self.parameters() if parameter not in theirs])]
        optimizers[0].register_step_post_hook(lambda *_: self.objective.advance())
        for player in players.values():
            optimizers.append((player.optimizer or self.make_optimizer)(player.module.parameters()))
        schedule = self.lr_scheduler
        return [
            {"optimizer": o, "lr_scheduler": {**schedule, "scheduler": schedule["scheduler"](o)}} if schedule else o
            for o in optimizers
        ]

    def training_step(self, batch: Batch) -> dict[str, Tensor]:
        """Returns the objective's terms, each a mean over the batch."""
        means, _ = batch_means(self.objective(self, batch))
        return means

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate("test", batch)

    def _evaluate(self, stage: str, batch: Batch) -> None:
        bound = ELBO()(self, batch) if self.has_bound else {}
        own = bound if type(self.objective) is ELBO else self.objective(self, batch)
        terms = {**own, **bound, "loss": own["loss"]}
        if bound:
            terms["elbo"] = -bound["loss"]
            terms |= self.likelihood.metrics(batch.images, bound["distortion"], bound["rate"])
        means, images = batch_means(terms)
        # Weighted by batch size, so that the epoch's mean is over images, not batches.
        metrics = {f"{stage}/{name}": mean for name, mean in means.items()}
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=images)
