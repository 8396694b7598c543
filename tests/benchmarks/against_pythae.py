"""The losses of pythae 0.1.2 on given numbers. It runs in an environment of its own; `tests/peers.py` calls it.

    python -m venv ENV && ENV/bin/pip install "torch==2.13.*" pythae==0.1.2
    ENV/bin/python tests/benchmarks/against_pythae.py numbers.npz        # writes numbers.json

Each value is given with its derivative (`'`) along a direction in the space of means and log-variances. Values named
`step` are that derivative as pythae's trainers leave it in `.grad`, just before the optimizers step.
"""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from pythae import models
from pythae.models.base.base_utils import ModelOutput
from pythae.models.msssim_vae.msssim_vae_utils import MSSSIM
from pythae.models.nn import BaseDecoder, BaseDiscriminator
from pythae.models.vq_vae.vq_vae_utils import QuantizerEMA
from pythae.trainers import AdversarialTrainer, CoupledOptimizerAdversarialTrainer, CoupledOptimizerTrainer
from torch import Tensor, nn


class Given:
    """The given numbers as tensors, and what follows from them."""

    def __init__(self, numbers: dict[str, Tensor]) -> None:
        vars(self).update(numbers)
        self.mean, self.log_variance = (nn.Parameter(numbers[name]) for name in ("mean", "log_variance"))
        self.decoder = nn.Parameter(numbers["decoder"])
        codes = self.mean + (0.5 * self.log_variance).exp() * self.noise  # (bounds, samples, B, D)
        self.codes = codes.permute(2, 0, 1, 3)
        self.z = codes[0, 0]

    def decode(self, z: Tensor) -> Tensor:
        return (z @ self.decoder + self.offset).sigmoid()

    def repeated(self, axes: int) -> tuple[Tensor, Tensor]:
        means, logs = [x[:, None, None].expand_as(self.codes) for x in (self.mean, self.log_variance)]
        return (means[:, 0], logs[:, 0]) if axes == 1 else (means, logs)

    @property
    def likely(self) -> tuple[Tensor, ...]:
        """The arguments that most of the losses take."""
        return self.decode(self.z), self.images, self.mean, self.log_variance, self.z

    def along(self) -> float:
        """The derivative along the direction, as it is in `.grad`."""
        return float((self.mean.grad * self.toward_mean + self.log_variance.grad * self.toward_log_variance).sum())


class Decoder(BaseDecoder):
    def __init__(self, given: Given) -> None:
        super().__init__()
        self.decode = given.decode

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.decode(z).reshape(-1, 1, 2, 3))


class Critic(BaseDiscriminator):
    """A discriminator with features tanh(x W) and the logit (features w); of images or of codes."""

    depth = 2

    def __init__(self, hidden: Tensor, last: Tensor) -> None:
        super().__init__()
        self.hidden, self.last = hidden, nn.Parameter(last)

    def forward(self, x: Tensor, output_layer_levels: list[int] | None = None) -> ModelOutput:
        features = (x.flatten(1) @ self.hidden).tanh()
        return ModelOutput(embedding_layer_1=features, embedding=(features @ self.last).sigmoid())


class TwoLogits(Critic):
    def forward(self, x: Tensor) -> Tensor:
        logit = (x @ self.hidden).tanh() @ self.last
        return torch.stack([logit, torch.zeros_like(logit)], 1)


def model(g: Given, name: str, config: str = "", **options: object) -> nn.Module:
    made = getattr(models, config or name + "Config")(input_dim=(1, 2, 3), latent_dim=g.z.shape[1], **options)
    return getattr(models, name)(made, decoder=Decoder(g))


def bounds(g: Given, name: str, axes: int, **options: object) -> tuple[Tensor, ...]:
    """The losses of an importance-weighted model, with codes of (images, samples) or (images, bounds, samples)."""
    count = {"number_samples": g.codes.shape[2]} | ({"number_gradient_estimates": g.codes.shape[1]} if axes > 1 else {})
    codes = g.codes[:, 0] if axes == 1 else g.codes
    made = model(g, name, reconstruction_loss="bce", **count, **options)
    return made.loss_function(g.decode(codes), g.images, *g.repeated(axes), codes)


def total_correlation(g: Given, stratified: bool) -> Tensor:
    one, two = (
        model(g, "BetaTCVAE", beta=beta, use_mss=stratified).loss_function(*g.likely, int(g.dataset_size))[0]
        for beta in (1.0, 2.0)
    )
    return two - one


def factor(g: Given) -> tuple[Tensor, Tensor]:
    made = model(g, "FactorVAE", gamma=3.0, reconstruction_loss="bce")
    made.discriminator = TwoLogits(g.code_hidden, g.code_critic)
    return made.loss_function(*g.likely, g.z.detach().gather(0, g.shuffle))[1:]


def adversarial(g: Given) -> tuple[Tensor, ...]:
    scales = {"adversarial_loss_scale": 0.75, "reconstruction_loss_scale": 0.25}
    made = model(g, "Adversarial_AE", "Adversarial_AE_Config", reconstruction_loss="bce", **scales)
    made.discriminator = Critic(g.code_hidden, g.code_critic)
    return made.loss_function(g.decode(g.z), g.images, g.z, g.prior_codes)


def vae_gan(g: Given) -> tuple[Tensor, ...]:
    made = model(g, "VAEGAN", adversarial_loss_scale=0.5, reconstruction_layer=1)
    made.discriminator = Critic(g.image_hidden, g.image_critic)
    return made.loss_function(g.decode(g.z), g.images, g.z, g.prior_codes, g.mean, g.log_variance)


def rae_gp(g: Given) -> Tensor:
    images = g.images.clone().requires_grad_()
    made = model(g, "RAE_GP", "RAE_GP_Config")
    made.device = "cpu"
    z = g.mean + (images - g.images).flatten(1) @ g.encoder[:, : g.mean.shape[1]]
    return made.loss_function(g.decode(z), images, z)[2]


def vamp(g: Given) -> Tensor:
    made = model(g, "VAMP", number_components=len(g.pseudo_inputs), reconstruction_loss="bce")
    with torch.no_grad():
        made.pseudo_inputs[0].weight.copy_(g.pseudo_inputs.T)
        made.pseudo_inputs[0].bias.zero_()
    encoded = (g.pseudo_inputs @ g.encoder).chunk(2, 1)
    made._modules["encoder"] = None
    made.__dict__["encoder"] = lambda images: ModelOutput(embedding=encoded[0], log_covariance=encoded[1])
    return made.loss_function(*g.likely, 100)[0]


def quantised(g: Given, size: int = 0) -> SimpleNamespace:
    """A codebook after one step of training, from the given state or from pythae's own."""
    torch.manual_seed(0)
    options = {"embedding_dim": 2, "num_embeddings": size or len(g.codebook), "commitment_loss_factor": 1.0}
    made = QuantizerEMA(SimpleNamespace(**options, decay=0.9)).float()
    if not size:
        made.embeddings.copy_(g.codebook)
        made.cluster_size.copy_(g.code_uses)
        made.ema_embed.copy_(g.codebook * g.code_uses[:, None])
    before = made.embeddings.clone()
    output = made(g.mean.float().reshape(len(g.mean), -1, 1, 2))
    unused = [code for code in range(len(before)) if code not in output.quantized_indices]
    growth = made.embeddings[unused].abs().max() / before[unused].abs().max() if unused else torch.tensor(1.0)
    return SimpleNamespace(loss=output.loss, codebook=made.embeddings, growth=growth)


def von_mises_fisher(g: Given) -> dict[str, Tensor]:
    made = model(g, "SVAE")
    concentration = g.log_variance[:, :1].exp() + 1
    count, dimension = 20_000, g.mean.shape[1]
    torch.manual_seed(0)
    loc = torch.nn.functional.normalize(g.mean, dim=1).repeat(count, 1)
    codes = made._sample_von_mises(loc, concentration.repeat(count, 1))
    return {
        "svae/rate": made._compute_kl(dimension, concentration).mean(),
        "svae/rate of 256 dimensions": made._compute_kl(256, concentration.float()).mean(),
        "svae/mean cosine": (codes * loc.detach()).sum(1).mean(),
    }


def ms_ssim(g: Given) -> Tensor:
    shown = (g.picture_logits + (g.z @ g.picture_decoder).reshape(g.pictures.shape)).sigmoid()
    return 1 - MSSSIM()(shown.float(), g.pictures.float())


def step(g: Given, trainer: type, **losses: Tensor) -> None:
    """Lets a trainer of pythae do its backward passes, without moving anything."""
    still = {"encoder": [g.mean, g.log_variance], "decoder": [g.decoder], "discriminator": [nn.Parameter(g.offset)]}
    still["autoencoder"] = still["encoder"] + still["decoder"]
    optimizers = {f"{name}_optimizer": torch.optim.SGD(parameters, lr=0.0) for name, parameters in still.items()}
    updates = {"update_encoder": True, "update_decoder": True, "update_discriminator": True}
    trainer._optimizers_step(SimpleNamespace(**optimizers), SimpleNamespace(**losses, **updates))


def losses(g: Given) -> dict[str, Tensor]:
    decoded, flat = g.decode(g.z), {"kernel_choice": "rbf", "reconstruction_loss": "bce"}
    piwae, gan, of_factor, code = bounds(g, "PIWAE", 2), vae_gan(g), factor(g), quantised(g)
    return von_mises_fisher(g) | {
        "vae/loss": model(g, "VAE", reconstruction_loss="bce").loss_function(*g.likely)[0],
        "vae gaussian/loss": model(g, "VAE").loss_function(*g.likely)[0],
        "beta_vae/loss": model(g, "BetaVAE", beta=3.0, reconstruction_loss="bce").loss_function(*g.likely)[0],
        "beta_tc_vae/total correlation, weighted": total_correlation(g, stratified=False),
        "beta_tc_vae/total correlation, stratified": total_correlation(g, stratified=True),
        "factor_vae/loss": of_factor[0],
        "factor_vae/discriminator": of_factor[1],
        "iwae/loss": bounds(g, "IWAE", 1)[0],
        "ciwae/loss": bounds(g, "CIWAE", 1, beta=0.3)[0],
        "miwae/loss": bounds(g, "MIWAE", 2)[0],
        "piwae/encoder": piwae[0],
        "piwae/decoder": piwae[1],
        "info_vae/loss": model(g, "INFOVAE_MMD", "INFOVAE_MMD_Config", alpha=0.3, lbd=20.0, **flat).loss_function(
            decoded, g.images, g.z, g.prior_codes, g.mean, g.log_variance
        )[0],
        "wae/loss": model(g, "WAE_MMD", "WAE_MMD_Config", reg_weight=20.0).loss_function(
            decoded, g.images, g.z, g.prior_codes
        )[0],
        "aae/loss": adversarial(g)[1],
        "aae/discriminator": adversarial(g)[2],
        "vae_gan/encoder": gan[1],
        "vae_gan/decoder of the source": gan[2],
        "vae_gan/discriminator": gan[3],
        "rae_l2/loss": model(g, "RAE_L2", "RAE_L2_Config", embedding_weight=0.1, reg_weight=0.01).loss_function(
            g.decode(g.mean), g.images, g.mean
        )[0],
        "rae_gp/penalty": rae_gp(g).mean(),
        "vq_vae/commitment": code.loss,
        "vq_vae/codebook": (code.codebook * g.code_direction).sum(),
        "vq_vae/growth of unused codes": quantised(g, size=64).growth,
        "vamp_vae/loss": vamp(g),
        "ms_ssim/similarity": ms_ssim(g),
    }


def steps(numbers: dict[str, Tensor]) -> dict[str, float]:
    found = {}
    g = Given(numbers)
    autoencoder, discriminator = factor(g)
    step(g, AdversarialTrainer, autoencoder_loss=autoencoder, discriminator_loss=discriminator)
    found["factor_vae/encoder step"] = g.along()
    g = Given(numbers)
    encoder, decoder, *_ = bounds(g, "PIWAE", 2)
    step(g, CoupledOptimizerTrainer, encoder_loss=encoder, decoder_loss=decoder)
    found["piwae/encoder step"] = g.along()
    g = Given(numbers)
    learned, encoder, decoder, discriminator, *_ = vae_gan(g)
    (of_learned,) = torch.autograd.grad(learned, g.decoder, retain_graph=True)
    three = {"encoder_loss": encoder, "decoder_loss": decoder, "discriminator_loss": discriminator}
    step(g, CoupledOptimizerAdversarialTrainer, **three)
    found["vae_gan/encoder step"] = g.along()
    adversarial_part = g.decoder.grad - 0.5 * of_learned
    found["vae_gan/decoder step, adversarial part"] = float((adversarial_part * g.toward_decoder).sum())
    return found


def main(file: Path) -> None:
    torch.set_default_dtype(torch.float64)
    numbers = {name: torch.from_numpy(array) for name, array in np.load(file).items()}
    g, found = Given(numbers), {}
    for name, value in losses(g).items():
        found[name] = value.item()
        if value.requires_grad:
            g.mean.grad, g.log_variance.grad = torch.zeros_like(g.mean), torch.zeros_like(g.mean)
            value.backward(retain_graph=True)
            found[name + "'"] = g.along()
    found |= steps(numbers)
    file.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
