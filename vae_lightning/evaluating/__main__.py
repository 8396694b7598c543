"""`python -m vae_lightning.evaluating RUN…`."""

from .command import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
