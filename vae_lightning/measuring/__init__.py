"""Measurements of a tested model, a module each, whose metrics are logged as `test/NAME`.

`averages`
    the bound and other averages over all test images, and the use of the latent space.
`annealing`
    a bound of log p(x) that owes nothing to the encoder, and how near it comes.
`information`
    what the rate consists of: what codes tell of their images, and how far all codes are from the prior.
`classes`
    how well codes tell the class, and whether classes are clusters, beside pixels and a classifier.
`distances`
    how samples and reconstructions compare with real images.
`copies`
    how far samples are from the nearest training image.
`paths`
    what lies between two codes.
`factors`
    how well single dimensions stand for single known factors of variation.
`faithfulness`
    what a plot of codes keeps of their neighbourhoods.
`subject`
    what all of them are given: the model, its test images, and how much to measure.

A new measurement is a module here with a function `measure(subject) -> Metrics`, in the list `MEASUREMENTS`; its
metrics are described in `vae_lightning.report.metrics`. It is called in evaluation mode without gradients and may draw
random numbers. Where its size is 0 or the data cannot tell, it returns no metrics, and a line says why; where there are
few images, it tells the subject. The calculation belongs to `vae_lightning.metrics`, whose functions know nothing of
data modules and sizes.
"""

from . import annealing, averages, classes, copies, distances, factors, faithfulness, information, paths
from .subject import Metrics, Sizes, Subject

__all__ = ["MEASUREMENTS", "Metrics", "Sizes", "Subject"]

MEASUREMENTS = (averages, annealing, information, classes, distances, copies, factors, paths, faithfulness)
