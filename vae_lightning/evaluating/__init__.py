"""Measures finished runs again: with more samples or images, on other data, with the best or the last checkpoint.

`command`
    the command line `vae-evaluate RUN…`: its options, messages and table.
`against`
    how well a model tells other data's images from its own.
`evaluate`
    the function `evaluate`, for use from Python, too.
`ranking`
    the function `disentanglement_ranking`, which compares runs that differ in the seed alone.
`settings`
    what is measured: the callbacks and the data of a run, or other data.
"""

from .command import main

__all__ = ["main"]
