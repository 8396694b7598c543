"""Trains the chapter's network with pythae 0.1.2, in an environment of its own; `leaderboard.py` calls it.

    ENV/bin/python tests/benchmarks/train_pythae.py images.npz OBJECTIVE SEED EPOCHS weights.npz

`images.npz` has `images` `(N, 1, 28, 28)`, uint8; `weights.npz` gets the weights and buffers in the order of the
layers, and the seconds that training took.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from pythae import models, trainers
from pythae.data.datasets import BaseDataset
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from torch import Tensor, nn

WIDTH, LATENT, BATCH, RATE = 28, 16, 128, 1e-3
SHAPE = {"input_dim": (1, 28, 28), "latent_dim": LATENT, "reconstruction_loss": "bce"}


class Encoder(BaseEncoder):
    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 1
        for after in (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH):
            layers += [nn.Conv2d(before, after, 3, 2, 1), nn.BatchNorm2d(after), nn.LeakyReLU()]
            before = after
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.mean, self.log_variance = nn.Linear(896, LATENT), nn.Linear(896, LATENT)

    def forward(self, x: Tensor) -> ModelOutput:
        features = self.trunk(x)
        return ModelOutput(embedding=self.mean(features), log_covariance=self.log_variance(features))


class Decoder(BaseDecoder):
    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(LATENT, 8 * WIDTH)
        layers: list[nn.Module] = []
        for before, after, stride, padding in [(8, 4, 1, 0), (4, 2, 2, 1), (2, 1, 2, 2)]:
            layers += [nn.ConvTranspose2d(before * WIDTH, after * WIDTH, 4, stride, padding, bias=False)]
            layers += [nn.BatchNorm2d(after * WIDTH), nn.LeakyReLU()]
        self.trunk = nn.Sequential(*layers, nn.ConvTranspose2d(WIDTH, 1, 4, 2, 1, bias=False), nn.Sigmoid())

    def forward(self, z: Tensor) -> ModelOutput:
        return ModelOutput(reconstruction=self.trunk(self.project(z).view(len(z), -1, 1, 1)))


# With our defaults: see conf/model/objective. β-TCVAE with the weighted estimate, the only one that is right here.
OBJECTIVES = {
    "vae": lambda: (models.VAE, models.VAEConfig(**SHAPE)),
    "beta_vae": lambda: (models.BetaVAE, models.BetaVAEConfig(**SHAPE, beta=4.0)),
    "beta_tc_vae": lambda: (models.BetaTCVAE, models.BetaTCVAEConfig(**SHAPE, beta=4.0, use_mss=False)),
    "iwae": lambda: (models.IWAE, models.IWAEConfig(**SHAPE, number_samples=8)),
    "factor_vae": lambda: (models.FactorVAE, models.FactorVAEConfig(**SHAPE, gamma=10.0, discriminator_hidden_dim=256)),
}


def main(images: str, objective: str, seed: str, epochs: str, file: str) -> None:
    torch.manual_seed(int(seed))
    pixels = torch.from_numpy(np.load(images)["images"]).float() / 255
    kind, config = OBJECTIVES[objective]()
    model = kind(config, encoder=Encoder(), decoder=Decoder())
    settings = {
        "num_epochs": int(epochs), "per_device_train_batch_size": BATCH, "seed": int(seed), "no_cuda": True,
        "output_dir": tempfile.mkdtemp(), "train_dataloader_num_workers": 0, "eval_dataloader_num_workers": 0,
    }  # fmt: skip
    data = BaseDataset(pixels, torch.zeros(len(pixels)))
    if objective == "factor_vae":
        chosen = trainers.AdversarialTrainerConfig(
            **settings, autoencoder_learning_rate=RATE, discriminator_learning_rate=1e-4,
            discriminator_optimizer_params={"betas": (0.5, 0.9)},
        )  # fmt: skip
        trainer = trainers.AdversarialTrainer(model, data, training_config=chosen)
    else:
        trainer = trainers.BaseTrainer(
            model, data, training_config=trainers.BaseTrainerConfig(**settings, learning_rate=RATE)
        )
    started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    state = [*model.encoder.state_dict().values(), *model.decoder.state_dict().values()]
    arrays = {f"{number:03}": value.cpu().numpy() for number, value in enumerate(state)}
    np.savez(Path(file), seconds=seconds, **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
