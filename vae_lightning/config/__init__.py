"""The configuration: its schema, what is said of mistakes in it, and what Hydra's callbacks do around a sweep."""
