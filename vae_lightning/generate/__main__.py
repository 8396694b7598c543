"""`python -m vae_lightning.generate VERB RUN`."""

from .command import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
