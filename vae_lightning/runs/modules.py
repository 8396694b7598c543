"""A limit on the number of a model's modules."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["MOST_MODULES", "few_modules"]

MOST_MODULES = 10_000  # residual networks of a thousand layers have half as many


@contextmanager
def few_modules() -> Iterator[None]:
    """Returns a context in which a model is made.

    A number of blocks or layers that is too large by far, by mistake or in a stranger's run, is thus refused at once,
    and does not take hours and all memory.

    Raises:
        ValueError: from the model's constructor, as soon as there are more than `MOST_MODULES`.
    """
    from torch.nn.modules.module import register_module_module_registration_hook

    count = 0

    def registered(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > MOST_MODULES:
            raise ValueError(f"more than {MOST_MODULES:,} modules; is a number of blocks or layers too large?")

    hook = register_module_module_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()
