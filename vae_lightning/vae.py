"""The variational autoencoder as a LightningModule: encode, decode, sample, reconstruct, and Lightning's steps."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.distributions import Distribution, Independent
from torch.optim import Optimizer

from .engine.graphs import CapturedStep, make_capturable
from .engine.shards import Part, whole_batch
from .objectives import ELBO, Terms
from .priors import Prior

__all__ = ["VAE", "DivergenceError"]


class DivergenceError(RuntimeError):
    """The training ended in numbers that are none."""


class VAE(LightningModule):
    """p(x|z) p(z) with an amortised posterior q(z|x), made of parts that can each be exchanged.

    Args:
        latent_dim: dimension of z.
        encoder: images `(B, C, H, W)` to q(z|x); the contract is in `vae_lightning.architectures`.
        decoder: codes `(…, latent_dim)` to raw parameters `(…, C, H, W)`; likewise.
        likelihood: raw parameters to p(x|z); see `vae_lightning.likelihoods`.
        prior: module with `distribution()`; see `vae_lightning.priors`.
        objective: what training minimises; see `vae_lightning.objectives`.
        optimizer: parameters to an optimizer.
        channels_last: whether images and kernels lie in memory with their channels last during training, which
            convolutions may compute faster.
        compile: whether training steps are compiled (`torch.compile`), once for each size of batch. Pays off where
            the time that it takes, tens of seconds on a CPU, is short beside the training.
        steps_per_call: optimizer steps for each call of Lightning's loop, which then gets a list of batches; they are
            the same steps, with less around them. `vae-train` takes the largest divisor of it that lets every callback
            see the batches that it waits for.
        cuda_graph: whether, on a CUDA device, a step is recorded once and then replayed; see `vae_lightning.capture`.

    With several steps a call, or a graph, optimization is manual in Lightning's sense: gradients are neither
    clipped nor accumulated.

    On several devices a batch is a `Part` of the whole one, and the loss the mean over the whole one. Objectives that
    compare the images of a batch with each other (`mmd`, `tc`, `free_bits`) do so within each part.

    A term that is not finite ends the training with a `DivergenceError`, and no such state is kept in a checkpoint.

    The logged metrics are per image, in nats: `train/`, `val/` and `test/` followed by `loss` (the objective's),
    `distortion` and `rate`; validation and test add `elbo`. In training, distortion and rate are the objective's
    own terms; validation and test always take the properly sampled bound, so that runs with different
    objectives can be compared. The test adds `distortion_above_floor` where the likelihood has a floor, and
    `bits_per_dim` where it is discrete.

    Raises:
        ValueError: if objective and prior do not go together.
    """

    def __init__(
        self,
        latent_dim: int,
        encoder: nn.Module,
        decoder: nn.Module,
        likelihood: nn.Module,
        prior: Prior,
        objective: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        channels_last: bool = False,
        compile: bool = False,
        steps_per_call: int = 1,
        cuda_graph: bool = False,
    ) -> None:
        super().__init__()
        if hasattr(prior, "attach"):
            prior.attach(encoder)
        if getattr(objective, "factorised_prior", False) and not isinstance(prior.distribution(), Independent):
            name, other = type(objective).__name__, type(prior).__name__
            raise ValueError(
                f"objective: {name} needs a prior with independent dimensions, such as standard, got {other}"
            )
        self.latent_dim = latent_dim
        self.encoder = encoder
        self.decoder = decoder
        self.likelihood = likelihood
        self.prior = prior
        self.objective = objective
        self.make_optimizer = optimizer
        self.channels_last = channels_last
        self.steps_per_call = steps_per_call
        self.cuda_graph = cuda_graph
        self._terms = torch.compile(self._objective_terms, dynamic=False) if compile else self._objective_terms
        self._captured_step: CapturedStep | None = None
        self._random_state: dict[str, Any] | None = None
        self._reports: list[tuple[int, Tensor]] = []

    @property  # type: ignore[misc]
    def automatic_optimization(self) -> bool:
        return self.steps_per_call == 1 and not self.cuda_graph

    def encode(self, x: Tensor) -> Distribution:
        """q(z|x) of images `(B, C, H, W)`: batch `(B,)`, event `(latent_dim,)`."""
        return self.encoder(x)

    def decode(self, z: Tensor) -> Distribution:
        """p(x|z) of codes `(…, latent_dim)`: batch `(…)`, event `(C, H, W)`."""
        raw = self.decoder(z)
        # Under mixed precision the distribution still has 32 bits: log p(x|z) is a sum over all pixels.
        return self.likelihood(raw.to(torch.promote_types(raw.dtype, torch.float32)))

    def sample(self, count: int) -> Tensor:
        """Means of p(x|z) `(count, C, H, W)` for codes drawn from the prior."""
        return self.decode(self.prior.distribution().sample((count,))).mean

    def reconstruct(self, x: Tensor) -> Tensor:
        """Means of p(x|z) `(B, C, H, W)` at the posterior means of images `(B, C, H, W)`."""
        return self.decode(self.encode(x).mean).mean

    def configure_optimizers(self) -> Optimizer:
        optimizer = self.make_optimizer(self.parameters())
        if hasattr(self.objective, "advance"):
            optimizer.register_step_post_hook(lambda *_: self.objective.advance())  # type: ignore[operator]
        return optimizer

    def on_fit_start(self) -> None:
        if self.channels_last:
            self.to(memory_format=torch.channels_last)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._account()
        if not all(parameter.isfinite().all() for parameter in self.parameters()):
            raise DivergenceError("weights: not finite; a lower model.optimizer.lr may help")
        # The same on every process of a training, whichever its device: all draw the noise of the whole batch.
        device = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        checkpoint["random_state"] = {"cpu": torch.get_rng_state(), "device": device}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._random_state = checkpoint.get("random_state")

    def on_train_start(self) -> None:
        if self._random_state is not None:
            torch.set_rng_state(self._random_state["cpu"])
            if self._random_state["device"] is not None:
                torch.cuda.set_rng_state(self._random_state["device"], self.device)
            self._random_state = None
        if self._can_capture():
            make_capturable(self._lightning_optimizer().optimizer)
            self._captured_step = CapturedStep(self._plain_step)

    def on_train_end(self) -> None:
        self._captured_step = None

    def _can_capture(self) -> bool:
        # Under float16 the gradient scaler decides after each step whether it counts: nothing that could be recorded.
        return self.cuda_graph and self.device.type == "cuda" and self.trainer.precision != "16-mixed"

    def _objective_terms(self, x: Tensor) -> Terms:
        return self.objective(self, x)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        """One step on a batch, or in manual optimization one on each batch of a list.

        Returns:
            The last batch's mean terms, by name.
        """
        if not self.automatic_optimization:
            return self._take_steps(batch if isinstance(batch, list) else [batch])
        with whole_batch(batch):
            terms = self._terms(batch[0])
        means = self._means(terms, batch)
        self._term_names = terms._fields
        step = self.global_step + 1
        self._reports.append((step, means.detach()))
        # Nothing is read back from a GPU but where it is looked at.
        if self._is_logged(step) or means.device.type == "cpu":
            self._account()
        return dict(zip(terms._fields, means.detach(), strict=True)) | {"loss": means[terms._fields.index("loss")]}

    def _means(self, terms: Sequence[Tensor], batch: Any) -> Tensor:
        """Means of the terms `(terms,)` over the whole batch, wherever its parts are."""
        if not isinstance(batch, Part):
            return torch.stack([term.mean() for term in terms])
        # Gradients are averaged over processes, whose parts may differ in size by an image.
        mine = torch.stack([term.sum() for term in terms]) * (self.trainer.world_size / batch.total)
        return mine + (self.trainer.strategy.reduce(mine.detach().clone(), reduce_op="mean") - mine.detach())

    def _take_steps(self, batches: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
        before = self.global_step
        reports = torch.stack([self._take_step(x) for x, _ in batches])
        self._reports += [(before + i + 1, report) for i, report in enumerate(reports)]
        self._account()
        # Lightning counts calls, and logs what it is given at the end of an epoch under that number.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped += len(batches) - 1
        return dict(zip(self._term_names, reports[-1].unbind(), strict=True))

    def _take_step(self, x: Tensor) -> Tensor:
        """A step on images `(B, C, H, W)`; returns the mean terms `(terms,)`."""
        if self._captured_step is None:
            return self._step(x, self.manual_backward, self._lightning_optimizer())
        report = self._captured_step(x)
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.increment_ready()
        progress.increment_completed()
        return report

    def _plain_step(self, x: Tensor) -> Tensor:
        return self._step(x, Tensor.backward, self._lightning_optimizer().optimizer)

    def _step(self, x: Tensor, backward: Callable[[Tensor], None], optimizer: Any) -> Tensor:
        terms = self._terms(x)
        self._term_names = terms._fields
        means = torch.stack([term.mean() for term in terms])
        optimizer.zero_grad()
        # All steps of a call are in one autocast context, which would keep its bfloat16 copies of the weights.
        with torch.autocast(x.device.type, enabled=False):
            backward(means[self._term_names.index("loss")])
            optimizer.step()
        torch.clear_autocast_cache()
        return means.detach()

    def _lightning_optimizer(self) -> LightningOptimizer:
        optimizer = self.optimizers()
        assert isinstance(optimizer, LightningOptimizer)
        return optimizer

    def _account(self) -> None:
        """Looks at the terms of the steps since the last time, and logs those that are to be logged.

        Raises:
            DivergenceError: at the first step with a term that is not finite.
        """
        if not self._reports:
            return
        steps, reports = zip(*self._reports, strict=True)
        self._reports = []
        for step, values in zip(steps, torch.stack(reports).tolist(), strict=True):
            terms = dict(zip(self._term_names, values, strict=True))
            if wrong := [f"{name} is {value}" for name, value in terms.items() if not math.isfinite(value)]:
                raise DivergenceError(f"step {step}: {', '.join(wrong)}; a lower model.optimizer.lr may help")
            if self._is_logged(step):
                self._log_terms(terms, step)

    def _log_terms(self, terms: dict[str, float], step: int) -> None:
        # Lightning's log takes as long as a small optimizer step, so it is called only where it is looked at; and what
        # goes to the loggers through it stands under the number of calls, not of steps.
        metrics = {f"train/{name}": value for name, value in terms.items()}
        self.log_dict(metrics, prog_bar=True, logger=False, batch_size=1)
        for logger in self.loggers:
            logger.log_metrics(metrics | {"epoch": self.current_epoch}, step)

    def _is_logged(self, step: int) -> bool:
        every_n_steps = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        return bool(every_n_steps) and step % every_n_steps == 0

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self, stage: str, batch: Any, batch_idx: int) -> None:
        x = batch[0]
        # The noise depends on the batch alone: the same model gets the same numbers whenever it is evaluated,
        # and training goes on as if it had not been.
        with isolate_rng(), whole_batch(batch):
            torch.manual_seed(batch_idx)
            bound = ELBO()(self, x)
            loss = bound.loss if type(self.objective) is ELBO or not len(x) else self.objective(self, x).loss
        found = {
            "loss": loss,
            "elbo": -bound.loss,
            "distortion": bound.distortion,
            "rate": bound.rate,
        }
        if stage == "test":
            if hasattr(self.likelihood, "floor"):
                found["distortion_above_floor"] = bound.distortion - self.likelihood.floor(x)  # type: ignore[operator]
            if getattr(self.likelihood, "discrete", False):
                found["bits_per_dim"] = bound.loss / (x.shape[1:].numel() * math.log(2))
        means = self._means(list(found.values()), batch)
        # Weighted by the number of images, so that the epoch's mean is over images, not over batches.
        images = batch.total if isinstance(batch, Part) else len(x)
        metrics = {f"{stage}/{name}": mean for name, mean in zip(found, means, strict=True)}
        # Every process logs the same, so that nothing is to be gathered (which Lightning would do with rounded counts).
        self.log_dict(metrics, on_step=False, on_epoch=True, batch_size=images)
