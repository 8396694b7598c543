"""`python -m vae_lightning.generate VERB RUN`."""

from .command import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
