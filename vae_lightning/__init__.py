"""Variational autoencoders compared: PyTorch Lightning experiments composed with Hydra."""

__version__ = "0.1.0"
