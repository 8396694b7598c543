"""Metrics of a trained model, as pure functions of tensors and a model; in nats per image unless stated otherwise.

`bounds`
    bounds of the log-likelihood, and the distance of reconstructions from the images.
`codes`
    how the latent space is used.
`information`
    what the rate consists of.
`geometry`
    the evenness of paths of images.
`disentanglement`
    how dimensions relate to known factors of variation.
`ranking`
    how alike runs are that differ in the seed, which needs no known factors.
`probes`
    how well codes separate the classes, whether these are clusters, and how faithful a plot of codes is.
`quality`
    how close samples and reconstructions are to real images.
`outliers`
    how well the bound of an image, and other scores made from it, tell other data's images.
`support`
    whether samples lie where real images do, and the other way round; standard errors of such metrics.
`reference`
    a data set's own classifier and class accuracies, by which models are judged; kept in a cache folder.

A posterior needs `rsample` and `log_prob` to be measured, a prior `sample` and `log_prob`.
"""
