"""What is measured of a trained model: pure functions of tensors and a model, in nats per image unless said otherwise.

`bounds`
    of the log-likelihood, and how far the reconstructions are from the images.
`codes`
    how the latent space is used, and where to look in it.
`probes`
    what the codes tell of the classes, and how faithful a plane of them is.
`quality`
    how close samples and reconstructions come to real images.
"""
