"""Our objectives beside pythae's and beside their sources' formulas, on the same numbers.

    python tests/peers.py ENV/bin/python        # see tests/benchmarks/against_pythae.py for what ENV needs

prints the table and keeps pythae's side in `tests/benchmarks/against_pythae.json`, which `test_peers.py` reads. Where
the two implementations differ, `formulas.py` decides.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from formulas import BATCH, BETA, BOUNDS, DATA_SET, DIMENSIONS, PIXELS, SAMPLES, Numbers, by_hand, numbers
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from vae_lightning.data.batch import Batch
from vae_lightning.distributions import SphericalUniform, VonMisesFisher
from vae_lightning.likelihoods import Bernoulli, Likelihood
from vae_lightning.objectives import (
    CIWAE,
    DIPI,
    DIPII,
    ELBO,
    IWAE,
    MIWAE,
    MMD,
    MSSSIM,
    PIWAE,
    RAEGP,
    RAEL2,
    TC,
    VAEGAN,
    WAEMMD,
    Adversarial,
    Beta,
    Factor,
    Objective,
    Terms,
)
from vae_lightning.posteriors import VectorQuantisedHead
from vae_lightning.priors import VampPrior
from vae_lightning.rates import rate

__all__ = ["CONVENTIONS", "REASONS", "RECORDED", "agrees", "converted", "ours"]

THEIRS = Path(__file__).parent / "benchmarks" / "against_pythae.py"
RECORDED = THEIRS.with_suffix(".json")

# pythae's values in our conventions: what is added, what it is multiplied by, and what the difference is.
CONVENTIONS: dict[str, tuple[float, float, str]] = {
    "vae gaussian/loss": (PIXELS / 2 * math.log(2 * math.pi), 1, "drops the constant ½ P log 2π"),
    "beta_tc_vae/total correlation, weighted": ((1 - DIMENSIONS) * math.log(DATA_SET), 1, "adds (D − 1) log N"),
    "aae/loss": (0, 4, "has weights that add up to 1 here"),
    "factor_vae/discriminator": (0, 2, "has the factor ½ of the source"),
    "vq_vae/commitment": (0, DIMENSIONS, "a mean over the code beside a sum over pixels: β is D times smaller"),
}

# Where pythae departs from the source.
REASONS = {
    "beta_tc_vae/total correlation, stratified": "1/N, the weight of an image's own posterior, goes to the first image "
    "of the batch, as in the authors' code: on average that is the weighted estimate, which it is to improve on",
    "factor_vae/encoder step": "the trainer adds the gradient of the discriminator's loss to the encoder's",
    "iwae/loss": "Σ w̃ log w, no bound: too good by log K less the entropy of w̃; the gradient is right",
    "ciwae/loss": "as iwae",
    "miwae/loss": "as iwae, with the roles of M and K exchanged, in the gradient as well",
    "piwae/encoder": "as miwae",
    "piwae/decoder": "as iwae",
    "piwae/encoder step": "the trainer adds the gradient of the decoder's loss to the encoder's",
    "vae_gan/discriminator": "reconstructions are left out",
    "vae_gan/decoder of the source": "reconstructions are left out",
    "vae_gan/encoder step": "the trainer adds the gradients of the other players' losses to the encoder's",
    "vae_gan/decoder step, adversarial part": "the trainer adds the gradient of the discriminator's loss, so that the "
    "decoder helps its opponent",
    "rae_l2/loss": "the decoder's weights are not regularised, whatever reg_weight is; the rest is right",
    "rae_gp/penalty": "slopes of the pixels with respect to the image, through the encoder, instead of the code",
    "vq_vae/growth of unused codes": "counts start at 0, so the first step throws unused codes far off",
    "svae/rate of 256 dimensions": "the Bessel function underflows in 32 bits, near κ = 2 from 75 dimensions on",
    "svae/mean cosine": "the gradient lacks the part of the rejection step",
    "ms_ssim/similarity": "the last scale counts once for each other scale; (1 + x)/2 in place of x; one value a batch",
}


class Given(Independent):
    """A diagonal normal distribution whose samples are given."""

    def __init__(self, mean: Tensor, log_variance: Tensor, samples: Tensor) -> None:
        super().__init__(Normal(mean, (0.5 * log_variance).exp()), 1)
        self.samples = samples

    def rsample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.samples[: math.prod(sample_shape)].view(*sample_shape, *self.samples.shape[1:])

    def sample(self, sample_shape: tuple[int, ...] = ()) -> Tensor:
        return self.samples[0]


class Means(Likelihood):
    """Normal pixels around the sigmoid of the raw parameters, with one variance."""

    def __init__(self, variance: float) -> None:
        super().__init__()
        self.variance = variance

    def forward(self, raw: Tensor) -> Independent:
        return Independent(Normal(raw.sigmoid(), math.sqrt(self.variance)), 3)


class Critic(nn.Module):
    """Features tanh(x W) and the logit (features w), as objectives want them of images or of codes."""

    def __init__(self, hidden: Tensor, last: Tensor, of_images: bool) -> None:
        super().__init__()
        self.hidden, self.last, self.of_images = hidden, last, of_images

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = ((x.flatten(1) if self.of_images else x) @ self.hidden).tanh()
        logit = features @ self.last
        return (features, logit) if self.of_images else logit


class GivenModel(nn.Module):
    """What objectives ask of a model, with given answers."""

    def __init__(self, n: dict[str, Tensor], likelihood: Likelihood | None = None) -> None:
        super().__init__()
        self.likelihood = likelihood or Bernoulli()
        self.decoder = nn.Linear(DIMENSIONS, PIXELS)
        self.decoder.weight.data, self.decoder.bias.data = n["decoder"].T.clone(), n["offset"].clone()
        mean, log_variance = n["mean"], n["log_variance"]
        codes = mean + (0.5 * log_variance).exp() * n["noise"].flatten(0, 1)
        zero = torch.zeros_like(mean[0])
        self.posterior: Distribution = Given(mean, log_variance, codes)
        self.prior: Distribution = Given(zero, zero, n["prior_codes"][None])

    def encode(self, x: Tensor, labels: Tensor | None = None) -> Distribution:
        return self.posterior

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        return self.likelihood(self.decoder(z).view(*z.shape[:-1], 1, 2, 3))

    def prior_distribution(self, labels: Tensor | None = None) -> Distribution:
        return self.prior


class PictureModel(GivenModel):
    def __init__(self, n: dict[str, Tensor]) -> None:
        super().__init__(n)
        self.n = n

    def decode(self, z: Tensor, labels: Tensor | None = None) -> Distribution:
        logits = self.n["picture_logits"]
        return self.likelihood(logits + (z @ self.n["picture_decoder"]).view(logits.shape))


def ours(given: Numbers) -> dict[str, float]:
    """All values, and under a name with `'` the derivatives along the given direction."""
    n = {name: torch.from_numpy(array) for name, array in given.items()}
    n["mean"].requires_grad_()
    n["log_variance"].requires_grad_()
    found = {}
    for name, value in _values(n).items():
        found[name] = value.mean().item()
        if value.requires_grad and not name.endswith("discriminator"):
            ways = [n["mean"], n["log_variance"]]
            slopes = torch.autograd.grad(value.mean(), ways, retain_graph=True, materialize_grads=True)
            found[f"{name}'"] = sum(
                (slope * n[f"toward_{way}"]).sum().item()
                for slope, way in zip(slopes, ("mean", "log_variance"), strict=True)
            )
    # Each player's gradient is that of its own term: see test_adversaries.py.
    steps = {"factor_vae": "loss", "piwae": "encoder", "vae_gan": "encoder"}
    return found | {f"{name}/encoder step": found[f"{name}/{term}'"] for name, term in steps.items()}


def _values(n: dict[str, Tensor]) -> Terms:
    bernoulli, half, whole = GivenModel(n), GivenModel(n, Means(0.5)), GivenModel(n, Means(1.0))

    def terms(objective: Objective, model: GivenModel = bernoulli, images: str = "images") -> Terms:
        return objective(model, Batch(n[images]))

    factor, adversarial = Factor(DIMENSIONS, BETA), Adversarial(DIMENSIONS, BETA)
    factor.discriminator = adversarial.discriminator = Critic(n["code_hidden"], n["code_critic"], of_images=False)  # type: ignore[assignment]
    gan = VAEGAN((1, 2, 3))
    gan.discriminator = Critic(n["image_hidden"], n["image_critic"], of_images=True)  # type: ignore[assignment]
    with patch("vae_lightning.objectives.factor.shuffled", lambda z: z.gather(0, n["shuffle"])):
        of_factor = terms(factor)
    with patch("torch.randn_like", torch.ones_like):
        of_rae_gp = terms(RAEGP(), half)
    of_adversarial, of_gan, of_piwae = terms(adversarial), terms(gan), terms(PIWAE(BOUNDS, SAMPLES))
    # pythae's squared errors have no constant, as a cost; a density has.
    constant = PIXELS / 2 * math.log(math.pi)
    return _discrete(n) | _vamp(n) | _on_the_sphere(n) | {
        "vae/loss": terms(ELBO())["loss"],
        "vae gaussian/loss": terms(ELBO(), whole)["loss"],
        "beta_vae/loss": terms(Beta(BETA))["loss"],
        "beta_tc_vae/total correlation, weighted": terms(TC())["total_correlation"],
        "factor_vae/loss": of_factor["loss"],
        "factor_vae/discriminator": of_factor["discriminator_loss"],
        "iwae/loss": terms(IWAE(SAMPLES))["loss"],
        "ciwae/loss": terms(CIWAE(0.3, SAMPLES))["loss"],
        "miwae/loss": terms(MIWAE(BOUNDS, SAMPLES))["loss"],
        "piwae/encoder": of_piwae["encoder_loss"],
        "piwae/decoder": of_piwae["loss"],
        "info_vae/loss": terms(MMD(0.3, 20))["loss"],
        "wae/loss": terms(WAEMMD(20), half)["loss"] - constant,
        "aae/loss": of_adversarial["loss"],
        "aae/discriminator": of_adversarial["discriminator_loss"],
        "vae_gan/encoder": of_gan["encoder_loss"],
        "vae_gan/decoder": of_gan["loss"],
        "vae_gan/discriminator": of_gan["discriminator_loss"],
        "rae_l2/loss": terms(RAEL2(0.1, 0.01), half)["loss"] - constant,
        "rae_gp/penalty": of_rae_gp["decoder_penalty"],
        "dip_i/penalty": terms(DIPI(2, 3))["covariance_penalty"],
        "dip_ii/penalty": terms(DIPII(2, 3))["covariance_penalty"],
        "ms_ssim/similarity": terms(MSSSIM(), PictureModel(n), "pictures")["ms_ssim"],
    }  # fmt: skip


def _discrete(n: dict[str, Tensor]) -> Terms:
    def quantised(vectors: Tensor, uses: Tensor) -> tuple[VectorQuantisedHead, Tensor]:
        head = VectorQuantisedHead(DIMENSIONS, DIMENSIONS, len(vectors), 2, decay=0.9, unused=0.0).double()
        head.vectors.copy_(vectors)
        head.uses.copy_(uses)
        head.sums.copy_(vectors * uses[:, None])
        return head, head(n["mean"]).commitment

    head, commitment = quantised(n["codebook"], n["code_uses"])
    fresh = VectorQuantisedHead(DIMENSIONS, DIMENSIONS, 64, 2, decay=0.9, unused=0.0).double()
    before = fresh.vectors.clone()
    used = fresh(n["mean"]).indices
    unused = [code for code in range(64) if code not in used]
    growth = fresh.vectors[unused].abs().max() / before[unused].abs().max()
    return {
        "vq_vae/commitment": commitment,
        "vq_vae/codebook": (head.vectors * n["code_direction"]).sum(),
        "vq_vae/growth of unused codes": growth,
    }


def _vamp(n: dict[str, Tensor]) -> Terms:
    class Encoder(nn.Module):
        def forward(self, images: Tensor) -> Distribution:
            mean, log_variance = (images.flatten(1) @ n["encoder"]).chunk(2, 1)
            return Independent(Normal(mean, (0.5 * log_variance).exp()), 1)

    model, prior = GivenModel(n), VampPrior((1, 2, 3), len(n["pseudo_inputs"])).double()
    prior.pseudo_inputs.data = n["pseudo_inputs"].logit().view(-1, 1, 2, 3)
    prior._encoder = (Encoder(),)
    model.prior = prior.distribution()
    return {"vamp_vae/loss": ELBO()(model, Batch(n["images"]))["loss"]}


def _on_the_sphere(n: dict[str, Tensor]) -> Terms:
    def posterior(dimensions: int, dtype: torch.dtype) -> VonMisesFisher:
        generator = torch.Generator().manual_seed(0)
        loc = torch.randn(BATCH, dimensions, dtype=dtype, generator=generator)
        return VonMisesFisher(nn.functional.normalize(loc, dim=1), (n["log_variance"][:, 0].exp() + 1).to(dtype))

    def rates(q: VonMisesFisher) -> Tensor:
        return rate(q, SphericalUniform(q.loc[0]), q.loc)

    torch.manual_seed(0)
    small = posterior(DIMENSIONS, torch.float64)
    return {
        "svae/rate": rates(small),
        "svae/rate of 256 dimensions": rates(posterior(256, torch.float32)),
        "svae/mean cosine": (small.rsample((5_000,)) * small.loc).sum(-1).mean(0),
    }


def converted(theirs: dict[str, float]) -> dict[str, float]:
    """pythae's values in our conventions."""
    found = dict(theirs)
    for name, (added, factor, _) in CONVENTIONS.items():
        found |= {name: theirs[name] * factor + added, f"{name}'": theirs[f"{name}'"] * factor}
    return found


def agrees(name: str, one: float, other: float) -> bool:
    """Whether two values are the same, up to what sampling, or 32 bits, leave open."""
    tolerances = {"svae/mean cosine": 6e-3, "svae/mean cosine'": 1e-3, "svae/rate of 256 dimensions": 1e-4}
    return bool(np.isclose(one, other, rtol=1e-5, atol=tolerances.get(name, 1e-5)))


def main(python: str) -> None:
    given = numbers()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "numbers.npz")
        np.savez(file, **given)  # type: ignore[arg-type]
        subprocess.run([python, THEIRS, file], check=True)
        RECORDED.write_text(file.with_suffix(".json").read_text())
    sides = {"ours": ours(given), "pythae": converted(json.loads(RECORDED.read_text()))}
    formula = by_hand(given)
    print(f"{'':42} {'ours':>9} {'pythae':>9} {'formula':>9}")
    for name in sorted(formula):
        base = name.removesuffix("'")
        values = [side.get(name) for side in sides.values()] + [formula[name]]
        columns = " ".join(" " * 9 if value is None else f"{value:9.5g}" for value in values)
        other = [who for who, side in sides.items() if name in side and not agrees(name, side[name], formula[name])]
        verdict = f"{' and '.join(other)}: {REASONS.get(base, 'unexplained')}" if other else "agree"
        note = f"; pythae {CONVENTIONS[base][2]}" if base in CONVENTIONS else ""
        print(f"{name:42} {columns}  {verdict}{note}")


if __name__ == "__main__":
    main(sys.argv[1])
