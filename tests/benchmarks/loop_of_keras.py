"""Keras 3's `fit` on JAX in `Turns`, in an environment of its own: `pip install keras jax`."""

import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from turns import Turns

os.environ["KERAS_BACKEND"] = "jax"
import keras
from keras import layers, ops

__all__ = ["loop"]

WIDTH = 28


class _Sample(layers.Layer):
    """Draws codes, and adds the rate to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = keras.random.SeedGenerator(0)

    def call(self, parameters):
        mean, log_variance = parameters
        rate = 0.5 * ops.sum(ops.square(mean) + ops.exp(log_variance) - 1 - log_variance, axis=1)
        self.add_loss(ops.mean(rate))
        return mean + keras.random.normal(ops.shape(mean), seed=self.noise) * ops.exp(0.5 * log_variance)


def _network(latent_dim: int) -> keras.Model:
    """The chapter's, with PyTorch's batch norm and paddings."""

    def normalised(x):
        return layers.LeakyReLU(0.01)(layers.BatchNormalization(momentum=0.9, epsilon=1e-5)(x))

    images = x = layers.Input((28, 28, 1))
    for channels in (WIDTH, 2 * WIDTH, 4 * WIDTH, 8 * WIDTH):
        x = normalised(layers.Conv2D(channels, 3, 2)(layers.ZeroPadding2D(1)(x)))
    features = layers.Flatten()(x)
    z = _Sample()([layers.Dense(latent_dim)(features), layers.Dense(latent_dim)(features)])
    x = layers.Reshape((1, 1, 8 * WIDTH))(layers.Dense(8 * WIDTH)(z))
    x = normalised(layers.Conv2DTranspose(4 * WIDTH, 4, use_bias=False)(x))
    x = normalised(layers.Conv2DTranspose(2 * WIDTH, 4, 2, "same", use_bias=False)(x))
    x = normalised(layers.Cropping2D(1)(layers.Conv2DTranspose(WIDTH, 4, 2, "same", use_bias=False)(x)))
    return keras.Model(images, layers.Conv2DTranspose(1, 4, 2, "same", use_bias=False)(x))


class _StepTimes(keras.callbacks.Callback):
    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns
        self.done = 0

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.done += 1
        if self.done == 1:  # compiled
            self.turns.start()
        elif self.done % self.turns.steps == 1:
            float(logs["loss"])  # waits for the device
            self.turns.end(self.turns.steps)
            if len(self.turns.seconds) == self.turns.count:
                raise _Stop


class _Stop(Exception):  # noqa: N818
    pass


def _distortion(images, logits):
    return ops.sum(ops.binary_crossentropy(images, logits, from_logits=True), axis=(1, 2, 3))


def loop(folder: str, latent_dim: int, turns: Turns) -> int:
    """k. The chapter's network on images in memory; returns the number of its trained parameters."""
    raw = np.fromfile(Path(folder, "KMNIST", "raw", "train-images-idx3-ubyte"), np.uint8, offset=16)
    images = raw.reshape(-1, 28, 28, 1).astype(np.float32) / 255
    model = _network(latent_dim)
    model.compile(keras.optimizers.Adam(1e-3), _distortion)
    with suppress(_Stop):
        model.fit(images, images, batch_size=128, epochs=10_000, verbose=0, callbacks=[_StepTimes(turns)])
    return sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
