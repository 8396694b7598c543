"""Uses a trained run: samples, reconstructions and codes, pictures of its latent space, exported models.

`command`
    the command line `vae-generate VERB RUN`: its options, formats and messages.
`images`
    samples, reconstructions and codes of images.
`latent_pictures`
    decoded paths, traversals and lattices.
`export`
    ONNX files and plain weights.
`fit_prior`
    a prior fitted to a run's codes, kept with the run.
`inputs`
    the images that a command names: files or test images.
`image_files`
    reading and writing them.

The functions that take a model instead of the command's options are for use from Python, too:

    from vae_lightning import load_run
    from vae_lightning.generate.latent_pictures import interpolate

    run = load_run("multirun/…/latent_dim-2")
    pictures = interpolate(run.model, *run.test_images(2), steps=16)
"""

from .command import main

__all__ = ["main"]
