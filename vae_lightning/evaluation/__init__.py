"""What is measured of a trained model: pure functions of tensors and a model, in nats per image unless said otherwise.

`bounds`
    bounds of the log-likelihood, and the distance of reconstructions from the images.
`codes`
    how the latent space is used.
`geometry`
    lattices of codes, and how even a path of pictures is.
`probes`
    how well codes separate the classes, and how faithful a picture of codes is.
`quality`
    how close samples and reconstructions come to real images.
`reference`
    a data set's own classifier and class accuracies, by which models are judged; kept in a cache folder.

A posterior needs `rsample` and `log_prob` to be measured, a prior `sample` and `log_prob`.
"""
