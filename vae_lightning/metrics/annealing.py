"""Annealed importance sampling, which bounds log p(x) without an encoder, and for simulated images from both sides.

Chains of Hamiltonian Monte Carlo go from p(z) to p(z|x) through densities proportional to p(z) p(x|z)^β, with β from 0
to 1. Their weights are unbiased estimates of p(x), however few steps they take; the more, the less these vary.

Source: Neal (2001), https://arxiv.org/abs/physics/9803008; Wu, Burda, Salakhutdinov and Grosse (2017),
https://arxiv.org/abs/1611.04273; Grosse, Ghahramani and Adams (2015), https://arxiv.org/abs/1511.02543.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from ..data.batch import Batch
from ..objectives import Model

__all__ = ["Sandwich", "annealed_bound", "annealed_sandwich", "simulated", "temperatures"]

Target = Callable[[Tensor], tuple[Tensor, Tensor]]
Advance = Callable[[float], object]

LEAPFROG = 10  # steps of a transition
FIRST_STEP = 0.2  # size of the first of them; adapted from there
WANTED = 0.65  # share of accepted transitions
FASTER = 1.02  # growth of a step's size after a transition that was accepted more often than wanted; else it shrinks


class Sandwich(NamedTuple):
    """Bounds of log p(x) of B images, in expectation one from below and one from above; each `(B,)`, in nats."""

    lower: Tensor
    upper: Tensor


def temperatures(steps: int) -> Tensor:
    """Returns β from 0 to 1 in so many steps, `(steps + 1,)`, close to each other at both ends.

    Source: Wu et al. (2017), section 4.1.

    >>> [round(beta, 3) for beta in temperatures(4).tolist()]
    [0.0, 0.105, 0.5, 0.895, 1.0]
    """
    position = torch.sigmoid(torch.linspace(-4, 4, steps + 1, dtype=torch.float64))
    return (position - position[0]) / (position[-1] - position[0])


def annealed_bound(
    model: Model, batch: Batch, chains: int, steps: int, advance: Advance = lambda share: None
) -> Tensor:
    """Returns log (1/K) Σ_k w_k of each image, `(B,)`: in expectation a bound of log p(x) that rises with the steps.

    Args:
        model: p(x|z) and p(z), a density on R^d.
        batch: B images and labels.
        chains: K, for each image.
        steps: of β from 0 to 1.
        advance: called after a share of the work, with the share; they add up to 1.
    """
    with _gradients():
        target, start = _target(model, batch), _start(model, batch, chains)
        sizes = _adapted(target, _start(model, batch, 1), steps, _scaled(advance, 1 / (chains + 1)))
        log_weights = _forward(target, start, sizes, _scaled(advance, chains / (chains + 1)))
    return _log_mean(log_weights)


def annealed_sandwich(
    model: Model, batch: Batch, codes: Tensor, chains: int, steps: int, advance: Advance = lambda share: None
) -> Sandwich:
    """Returns the bounds of simulated images, whose posterior has a known sample: the codes that they were drawn from.

    Their difference is, in expectation, at least that of the lower bound from log p(x): it tells whether the same
    chains and steps suffice for real images (bidirectional Monte Carlo).

    Args:
        model: as for `annealed_bound`.
        batch: images from `simulated`, and labels.
        codes: those that they were drawn from, `(B, latent_dim)`.
        chains: for each image and direction.
        steps: of β.
        advance: as for `annealed_bound`.
    """
    with _gradients():
        target, start = _target(model, batch), _start(model, batch, chains)
        sizes = _adapted(target, _start(model, batch, 1), steps, _scaled(advance, 1 / (2 * chains + 1)))
        scaled = _scaled(advance, chains / (2 * chains + 1))
        up = _forward(target, start, sizes, scaled)
        down = _backward(target, codes.clone().expand(chains, *codes.shape), sizes, scaled)
    return Sandwich(_log_mean(up), -_log_mean(-down))


def simulated(model: Model, count: int, labels: Tensor | None = None) -> tuple[Batch, Tensor]:
    """Returns images drawn from p(x|z) p(z), with labels `(count,)` if any, and their codes `(count, latent_dim)`."""
    prior = model.prior_distribution(labels)
    codes = prior.sample(() if prior.batch_shape else (count,))
    return Batch(model.decode(codes, labels).sample(), labels), codes


@contextmanager
def _gradients() -> Iterator[None]:
    """A context in which gradients can be taken, even where a trainer tests."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _target(model: Model, batch: Batch) -> Target:
    """Returns log p(z) and log p(x|z) of codes `(K, B, latent_dim)`, each `(K, B)`."""
    images, labels = batch.images.clone(), None if batch.labels is None else batch.labels.clone()
    prior = model.prior_distribution(labels)
    return lambda codes: (prior.log_prob(codes), model.decode(codes, labels).log_prob(images))


def _start(model: Model, batch: Batch, chains: int) -> Tensor:
    """Returns codes from the prior `(chains, B, latent_dim)`."""
    with torch.no_grad():
        prior = model.prior_distribution(batch.labels)
        return prior.sample((chains,) if prior.batch_shape else (chains, len(batch.images)))


def _no_weights(codes: Tensor) -> Tensor:
    """log w of 0 for each code, in 64 bits; PyTorch has none for Apple's GPUs."""
    return codes.new_zeros(codes.shape[:-1], dtype=torch.float32 if codes.device.type == "mps" else torch.float64)


def _forward(target: Target, codes: Tensor, sizes: Tensor, advance: Advance) -> Tensor:
    """Returns log w `(K, B)` of chains that start at codes of the prior, with steps of known sizes `(steps, B)`."""
    betas = temperatures(len(sizes)).tolist()
    log_weights = _no_weights(codes)
    chains = _Chains(target, codes)
    for number, size in enumerate(sizes, 1):
        log_weights += (betas[number] - betas[number - 1]) * chains.log_likelihood
        chains.move(betas[number], size)
        advance(1 / len(sizes))
    return log_weights


def _backward(target: Target, codes: Tensor, sizes: Tensor, advance: Advance) -> Tensor:
    """Returns log w `(K, B)` of the same chains, run the other way from codes of p(z|x)."""
    betas = temperatures(len(sizes)).tolist()
    log_weights = _no_weights(codes)
    chains = _Chains(target, codes)
    for number, size in reversed([*enumerate(sizes, 1)]):
        chains.move(betas[number], size)
        log_weights += (betas[number] - betas[number - 1]) * chains.log_likelihood
        advance(1 / len(sizes))
    return log_weights


def _adapted(target: Target, codes: Tensor, steps: int, advance: Advance) -> Tensor:
    """Returns sizes of steps `(steps, B)`, found with chains of their own: the weights of others stay unbiased."""
    sizes = codes.new_full(codes.shape[1:-1], FIRST_STEP)
    found = []
    chains = _Chains(target, codes)
    for beta in temperatures(steps)[1:].tolist():
        accepted = chains.move(beta, sizes).mean(0)
        sizes = sizes * torch.where(accepted > WANTED, FASTER, 1 / FASTER)
        found.append(sizes)
        advance(1 / steps)
    return torch.stack(found)


class _Chains:
    """Codes `(K, B, latent_dim)` that move by Hamiltonian Monte Carlo, and what is known of each."""

    def __init__(self, target: Target, codes: Tensor) -> None:
        self.target = target
        self.codes = codes
        self.log_prior, self.log_likelihood, *self.slopes = self._known(codes)

    def move(self, beta: float, size: Tensor) -> Tensor:
        """Makes a transition that keeps p(z) p(x|z)^β; returns the probability of its acceptance `(K, B)`."""
        size = size[..., None]
        momentum = torch.randn_like(self.codes)
        before = self.log_prior + beta * self.log_likelihood - momentum.square().sum(-1) / 2
        codes, known = self.codes, (self.log_prior, self.log_likelihood, *self.slopes)
        for _ in range(LEAPFROG):
            momentum = momentum + size / 2 * (known[2] + beta * known[3])
            codes = codes + size * momentum
            known = self._known(codes)
            momentum = momentum + size / 2 * (known[2] + beta * known[3])
        after = known[0] + beta * known[1] - momentum.square().sum(-1) / 2
        probability = (after - before).clamp(max=0).exp().nan_to_num(0)
        accepted = torch.rand_like(probability) < probability
        self.codes = torch.where(accepted[..., None], codes, self.codes)
        self.log_prior = torch.where(accepted, known[0], self.log_prior)
        self.log_likelihood = torch.where(accepted, known[1], self.log_likelihood)
        self.slopes = [
            torch.where(accepted[..., None], new, old) for new, old in zip(known[2:], self.slopes, strict=True)
        ]
        return probability

    def _known(self, codes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns log p(z) and log p(x|z), each `(K, B)`, and their gradients, each `(K, B, latent_dim)`."""
        codes = codes.detach().requires_grad_()
        log_prior, log_likelihood = self.target(codes)
        (of_prior,) = torch.autograd.grad(log_prior.sum(), codes)
        (of_likelihood,) = torch.autograd.grad(log_likelihood.sum(), codes)
        return log_prior.detach(), log_likelihood.detach(), of_prior, of_likelihood


def _log_mean(log_weights: Tensor) -> Tensor:
    return log_weights.logsumexp(0) - math.log(len(log_weights))


def _scaled(advance: Advance, share: float) -> Advance:
    return lambda part: advance(share * part)
