"""Encoders and decoders, a pair to a file.

The contract of the two, which is all that the rest of the project knows of an architecture:

**Encoder** `(image_shape, latent_dim, …)`
    A module that maps images `(B, C, H, W)` with values in [0, 1] to the posterior q(z|x): a
    `torch.distributions` object with batch shape `(B,)` and event shape `(latent_dim,)`.
    `GaussianHead` makes one from features.

**Decoder** `(image_shape, latent_dim, …)`
    A module that maps codes `(…, latent_dim)` to the raw parameters of p(x|z), `(…, C, H, W)`, without an
    output nonlinearity: what the parameters mean is for the likelihood to say.

One that cannot serve an image shape raises `ValueError` when it is made.
"""
