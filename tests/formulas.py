"""Losses as their sources define them, in float64 NumPy, on numbers that are given: the third opinion of `peers.py`.

Images have 1×2×3 pixels. Losses are means over the batch of nats per image. Derivatives are central differences.
"""

import math
from collections.abc import Iterator
from itertools import product

import numpy as np
from numpy import ndarray

__all__ = [
    "BATCH",
    "BETA",
    "BOUNDS",
    "CODES",
    "DATA_SET",
    "DIMENSIONS",
    "PIXELS",
    "SAMPLES",
    "Numbers",
    "by_hand",
    "numbers",
]

Numbers = dict[str, ndarray]
BATCH, DIMENSIONS, PIXELS, BOUNDS, SAMPLES, CODES, DATA_SET = 8, 4, 6, 3, 5, 6, 1000
BETA = 3.0  # weight of whatever an objective weighs
STEP = 1e-5  # of the differences
OF_CRITIC = "vae_gan/discriminator"


def numbers() -> Numbers:
    """Everything that the losses are given."""
    random = np.random.default_rng(7)
    normal = random.standard_normal
    pictures = random.uniform(0.02, 0.98, (BATCH, 1, 28, 28))
    return {
        "images": random.random((BATCH, 1, 2, 3)),
        "mean": normal((BATCH, DIMENSIONS)),
        "log_variance": 0.5 * normal((BATCH, DIMENSIONS)) - 0.5,
        "toward_mean": normal((BATCH, DIMENSIONS)),
        "toward_log_variance": normal((BATCH, DIMENSIONS)),
        "noise": normal((BOUNDS, SAMPLES, BATCH, DIMENSIONS)),
        "prior_codes": normal((BATCH, DIMENSIONS)),
        "decoder": normal((DIMENSIONS, PIXELS)),
        "toward_decoder": normal((DIMENSIONS, PIXELS)),
        "offset": normal(PIXELS),
        "encoder": 0.5 * normal((PIXELS, 2 * DIMENSIONS)),
        "pseudo_inputs": random.uniform(0.05, 0.95, (7, PIXELS)),
        "code_hidden": normal((DIMENSIONS, 9)),
        "code_critic": normal(9),
        "image_hidden": normal((PIXELS, 9)),
        "image_critic": normal(9),
        "shuffle": normal((BATCH, DIMENSIONS)).argsort(0),
        "dataset_size": np.array(DATA_SET),
        "codebook": normal((CODES, 2)),
        "code_uses": random.uniform(1, 3, CODES),
        "code_direction": normal((CODES, 2)),
        "pictures": pictures,
        "picture_logits": np.log(pictures / (1 - pictures)) + 0.5 * normal(pictures.shape),
        "picture_decoder": 0.3 * normal((DIMENSIONS, 28 * 28)),
    }


def by_hand(n: Numbers) -> dict[str, float]:
    """All values, and under a name with `'` the derivatives along the given direction."""

    def moved(by: float) -> Numbers:
        along = {name: n[name] + by * n[f"toward_{name}"] for name in ("mean", "log_variance")}
        return {**n, **along}

    found, ahead, back = _values(n), _values(moved(STEP)), _values(moved(-STEP))
    # Discriminators and codebooks are trained by themselves, on codes that are given.
    apart = ("discriminator", "codebook", "codes")
    slopes = {f"{name}'": (ahead[name] - back[name]) / (2 * STEP) for name in found if not name.endswith(apart)}
    for name in ("factor_vae", "piwae", "vae_gan"):
        part = "loss" if name == "factor_vae" else "encoder"
        slopes[f"{name}/encoder step"] = slopes[f"{name}/{part}'"]
    ahead, back = (_gan({**n, "decoder": n["decoder"] + by * n["toward_decoder"]}) for by in (STEP, -STEP))
    # What the decoder minimises is ½ (learned distortion) less ½ of what the discriminator does.
    slopes["vae_gan/decoder step, adversarial part"] = (back[OF_CRITIC] - ahead[OF_CRITIC]) / (4 * STEP)
    return found | slopes


def _values(n: Numbers) -> dict[str, float]:
    mean, log_variance, z, prior = n["mean"], n["log_variance"], _codes(n)[0, 0], n["prior_codes"]
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    bernoulli, square = _bernoulli(n, z), _square(n, z)
    squares, logit = _square(n, mean), _critic(n, z)
    shuffled = np.take_along_axis(z, n["shuffle"], 0)
    # Kim and Mnih (2018), algorithm 2, but for its factor of ½
    telling = -np.log(_sigmoid(logit)) - np.log(1 - _sigmoid(_critic(n, shuffled)))
    slopes = _slopes(n)
    with_codes = n["codebook"][_nearest(n["codebook"], mean)].reshape(mean.shape)
    found = {
        "vae/loss": bernoulli + kl,
        # −log N(x; x̃, 1)
        "vae gaussian/loss": square / 2 + PIXELS / 2 * math.log(2 * math.pi) + kl,
        "beta_vae/loss": bernoulli + BETA * kl,
        "beta_tc_vae/total correlation, weighted": _weighted_correlation(n, z),
        "beta_tc_vae/total correlation, stratified": _stratified_correlation(n, z),
        "factor_vae/loss": bernoulli + kl + BETA * np.log(_sigmoid(logit) / (1 - _sigmoid(logit))),
        "factor_vae/discriminator": telling,
        "info_vae/loss": bernoulli + 0.7 * kl + (0.3 + 20 - 1) * _mmd(z, prior, _gaussian_kernel),
        # the cost of Tolstikhin et al. is ‖x − x̃‖²
        "wae/loss": square + 20 * _mmd(z, prior, _multiquadratic),
        "aae/loss": bernoulli - BETA * np.log(_sigmoid(logit)),
        "aae/discriminator": -np.log(_sigmoid(_critic(n, prior))) - np.log(1 - _sigmoid(logit)),
        "rae_l2/loss": squares + 0.1 * 0.5 * (mean**2).sum(1) + 0.01 * ((n["decoder"] ** 2).sum() + _offsets(n)),
        "rae_gp/penalty": (slopes.sum(2) ** 2).sum(1),  # ‖vᵀ J‖² for v = (1, …, 1)
        "vq_vae/commitment": ((mean - with_codes) ** 2).sum(1),
        "vq_vae/codebook": np.array((_followed(n) * n["code_direction"]).sum()),
        "vq_vae/growth of unused codes": np.array(1.0),  # both averages of appendix A.1 shrink alike
        "vamp_vae/loss": bernoulli + _log_normal(z, mean, log_variance) - _log_vamp(n, z),
        "dip_i/penalty": np.array(_dip(np.cov(mean.T, bias=True))),
        "dip_ii/penalty": np.array(_dip(np.cov(mean.T, bias=True) + np.diag(np.exp(log_variance).mean(0)))),
        "ms_ssim/similarity": _similarity(n, z),
    }
    return {name: float(value.mean()) for name, value in found.items()} | _bounds(n) | _gan(n) | _on_the_sphere(n)


def _sigmoid(x: ndarray) -> ndarray:
    return 1 / (1 + np.exp(-x))


def _codes(n: Numbers) -> ndarray:
    return n["mean"] + np.exp(0.5 * n["log_variance"]) * n["noise"]


def _decode(n: Numbers, z: ndarray) -> ndarray:
    """Raw parameters of pixels."""
    return z @ n["decoder"] + n["offset"]


def _pixels(n: Numbers) -> ndarray:
    return n["images"].reshape(BATCH, PIXELS)


def _bernoulli(n: Numbers, z: ndarray) -> ndarray:
    p = _sigmoid(_decode(n, z))
    return -(_pixels(n) * np.log(p) + (1 - _pixels(n)) * np.log(1 - p)).sum(-1)


def _square(n: Numbers, z: ndarray) -> ndarray:
    return ((_pixels(n) - _sigmoid(_decode(n, z))) ** 2).sum(-1)


def _offsets(n: Numbers) -> float:
    return float((n["offset"] ** 2).sum())


def _log_normal(z: ndarray, mean: ndarray, log_variance: ndarray) -> ndarray:
    return -0.5 * (np.log(2 * np.pi) + log_variance + (z - mean) ** 2 / np.exp(log_variance)).sum(-1)


def _log_mean(x: ndarray, axis: int) -> ndarray:
    return np.log(np.exp(x).mean(axis))


def _bounds(n: Numbers) -> dict[str, float]:
    """Burda et al. (2016), equation 8; Rainforth et al. (2018), section 5."""
    z = _codes(n)
    log_weights = -_bernoulli(n, z) + _log_normal(z, 0 * z, 0 * z) - _log_normal(z, n["mean"], n["log_variance"])
    iwae, elbo = -_log_mean(log_weights[0], 0), -log_weights[0].mean(0)
    several = -_log_mean(log_weights, 1).mean(0)
    found = {
        "iwae/loss": iwae,
        "ciwae/loss": 0.3 * elbo + 0.7 * iwae,
        "miwae/loss": several,
        "piwae/encoder": several,
        "piwae/decoder": -_log_mean(log_weights.reshape(-1, BATCH), 0),
    }
    return {name: float(value.mean()) for name, value in found.items()}


def _densities(n: Numbers, z: ndarray) -> ndarray:
    """Of dimension k of code i under the posterior of image j, `[i, j, k]`."""
    variance = np.exp(n["log_variance"])
    return np.exp(-0.5 * (z[:, None] - n["mean"]) ** 2 / variance) / np.sqrt(2 * np.pi * variance)


def _weighted_correlation(n: Numbers, z: ndarray) -> ndarray:
    """Chen et al. (2018), appendix C.1, up to the constant (D − 1) log N."""
    found = _densities(n, z)
    return np.log(found.prod(2).mean(1)) - np.log(found.mean(1)).sum(1)


def _stratified_correlation(n: Numbers, z: ndarray) -> ndarray:
    """Chen et al. (2018), appendix C.2: 1/N for the image itself, (N − M)/(N M) for one other, 1/M for the rest."""
    found, others = _densities(n, z), BATCH - 1
    weights = np.full((BATCH, BATCH), 1 / others)
    for image in range(BATCH):
        weights[image, image] = 1 / DATA_SET
        weights[image, (image + 1) % BATCH] = (DATA_SET - others) / (DATA_SET * others)
    joint = (weights * found.prod(2)).sum(1)
    return np.log(joint) - np.log((weights[:, :, None] * found).sum(1)).sum(1)


def _critic(n: Numbers, z: ndarray) -> ndarray:
    return np.tanh(z @ n["code_hidden"]) @ n["code_critic"]


def _gaussian_kernel(a: ndarray, b: ndarray) -> float:
    return math.exp(-((a - b) ** 2).sum() / (2 * DIMENSIONS))


def _multiquadratic(a: ndarray, b: ndarray) -> float:
    widths = [2 * DIMENSIONS * scale for scale in (0.1, 0.2, 0.5, 1, 2, 5, 10)]
    return sum(width / (width + ((a - b) ** 2).sum()) for width in widths)


def _mmd(one: ndarray, other: ndarray, kernel) -> float:
    """Gretton et al. (2012), lemma 6."""
    pairs = list(product(range(BATCH), repeat=2))
    within = sum(kernel(x[i], x[j]) for x in (one, other) for i, j in pairs if i != j) / (BATCH * (BATCH - 1))
    return within - 2 * sum(kernel(one[i], other[j]) for i, j in pairs) / BATCH**2


def _gan(n: Numbers) -> dict[str, float]:
    """Larsen et al. (2016), equations 6 to 8 and algorithm 1, with γ = 1."""
    mean, log_variance, z = n["mean"], n["log_variance"], _codes(n)[0, 0]
    kl = 0.5 * (mean**2 + np.exp(log_variance) - 1 - log_variance).sum(1)
    shown = [_pixels(n), _sigmoid(_decode(n, z)), _sigmoid(_decode(n, n["prior_codes"]))]
    features = [np.tanh(x @ n["image_hidden"]) for x in shown]
    real, reconstructed, sampled = (_sigmoid(x @ n["image_critic"]) for x in features)
    learned = 0.5 * ((features[0] - features[1]) ** 2).sum(1)
    game = np.log(real) + np.log(1 - reconstructed) + np.log(1 - sampled)
    found = {
        "vae_gan/encoder": kl + learned,
        "vae_gan/decoder": kl + learned - np.log(reconstructed) - np.log(sampled),  # non-saturating
        "vae_gan/decoder of the source": 0.5 * learned + 0.5 * game,
        OF_CRITIC: -game,
    }
    return {name: float(value.mean()) for name, value in found.items()}


def _slopes(n: Numbers) -> ndarray:
    """∂(mean of pixel p)/∂(dimension d of the code), `(B, D, P)`."""
    p = _sigmoid(_decode(n, n["mean"]))
    return (p * (1 - p))[:, None] * n["decoder"]


def _nearest(codebook: ndarray, outputs: ndarray) -> ndarray:
    return ((outputs.reshape(-1, 1, 2) - codebook) ** 2).sum(2).argmin(1)


def _followed(n: Numbers) -> ndarray:
    """The codebook after a step: van den Oord et al. (2017), equations 6 to 8, with γ = 0.9."""
    outputs, uses = n["mean"].reshape(-1, 2), n["code_uses"]
    chosen = np.eye(CODES)[_nearest(n["codebook"], outputs)]
    sums = 0.9 * n["codebook"] * uses[:, None] + 0.1 * chosen.T @ outputs
    return sums / (0.9 * uses + 0.1 * chosen.sum(0))[:, None]


def _log_vamp(n: Numbers, z: ndarray) -> ndarray:
    """Tomczak and Welling (2018), equation 9."""
    mean, log_variance = np.split(n["pseudo_inputs"] @ n["encoder"], 2, axis=1)
    return _log_mean(_log_normal(z[:, None], mean, log_variance), 1)


def _dip(covariance: ndarray) -> float:
    """Kumar et al. (2018), equations 6 and 7, with weights 2 and 3."""
    pairs = product(range(DIMENSIONS), repeat=2)
    return sum(3 * (covariance[i, i] - 1) ** 2 if i == j else 2 * covariance[i, j] ** 2 for i, j in pairs)


def _on_the_sphere(n: Numbers) -> dict[str, float]:
    """Davidson et al. (2018), by integrals over the angle."""
    concentration = np.exp(n["log_variance"][:, 0]) + 1
    rates = {size: [_sphere(kappa, size) for kappa in concentration] for size in (DIMENSIONS, 256)}
    return {
        "svae/rate": float(np.mean([rate for rate, _ in rates[DIMENSIONS]])),
        "svae/rate of 256 dimensions": float(np.mean([rate for rate, _ in rates[256]])),
        "svae/mean cosine": float(np.mean([cosine for _, cosine in rates[DIMENSIONS]])),
    }


def _sphere(kappa: float, dimensions: int) -> tuple[float, float]:
    """KL(vMF ‖ uniform) and E[cos]: as densities of the angle both have the same area factor, which cancels."""
    angle = np.linspace(0, np.pi, 20_001)
    uniform = np.sin(angle) ** (dimensions - 2)
    density = uniform * np.exp(kappa * np.cos(angle))
    cosine = (density * np.cos(angle)).sum() / density.sum()
    return kappa * cosine - math.log(density.sum() / uniform.sum()), cosine


def _similarity(n: Numbers, z: ndarray) -> ndarray:
    """Wang et al. (2003), equation 7, with the two scales that the window of 11 pixels fits."""
    one = n["pictures"][:, 0]
    other = _sigmoid(n["picture_logits"][:, 0] + (z @ n["picture_decoder"]).reshape(one.shape))
    (_, contrast), (whole, _) = _scales(one, other)
    weights = np.array([0.0448, 0.2856]) / (0.0448 + 0.2856)
    return contrast ** weights[0] * whole ** weights[1]


def _scales(one: ndarray, other: ndarray) -> Iterator[tuple[ndarray, ndarray]]:
    for scale in (1, 2):
        a, b = (x.reshape(BATCH, 28 // scale, scale, 28 // scale, scale).mean((2, 4)) for x in (one, other))
        mean_a, mean_b, square_a, square_b, across = (_blurred(x) for x in (a, b, a * a, b * b, a * b))
        noise = square_a - mean_a**2 + square_b - mean_b**2
        contrast = (2 * (across - mean_a * mean_b) + 0.03**2) / (noise + 0.03**2)
        light = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        yield (light * contrast).mean((1, 2)), contrast.mean((1, 2))


def _blurred(x: ndarray) -> ndarray:
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    return (np.lib.stride_tricks.sliding_window_view(x, (11, 11), (1, 2)) * window).sum((3, 4))
