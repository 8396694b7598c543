"""Encoders and decoders, one pair per file.

The rest of the project relies only on this contract:

**Encoder** `(image_shape, latent_dim, …)`
    A module that maps images `(B, C, H, W)` with values in [0, 1] to the posterior q(z|x): a
    `torch.distributions` object with batch shape `(B,)` and event shape `(latent_dim,)`.
    Ours take an option `posterior`, the head that makes it from features; see `vae_lightning.posteriors`.

**Decoder** `(image_shape, latent_dim, …)`
    A module that maps codes `(…, latent_dim)` to the raw parameters of p(x|z), without an output nonlinearity: the
    likelihood defines what they mean. Its `image_shape` is that of the raw parameters, `(C, H, W)`, of which there are
    as many per pixel as `Likelihood.raw_channels` says; it returns `(…, C, H, W)`.

Both raise `ValueError` when they are made for an image shape that they do not support.
"""
