"""Noise on several devices: every process draws the noise of the whole batch and keeps its own slice.

All processes have the same seed, so noise drawn only for a process's own images would be identical on every device.
Within a sharded step, every random operation (posterior samples, dropout, augmentation) is therefore executed for the
whole batch and sliced; operations that cannot be sliced raise an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["NoiseError", "WholeBatchNoise"]

# Operations that draw a fixed number of random values whatever their arguments; with others, the random states of the
# processes would drift apart.
STEADY = {
    "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "multinomial", "native_dropout",
    "normal", "normal_", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like", "uniform_",
}  # fmt: skip


class NoiseError(RuntimeError):
    """Raised for noise that cannot be sliced across devices."""


class WholeBatchNoise(TorchDispatchMode):
    """A mode in which random operations on a shard draw the noise of the whole batch and keep the shard's slice.

    The batch axis is the first axis with the shard's length, of pictures and feature maps `(B, C, H, W)` therefore the
    first even if there are as many channels. Draws from an explicit `torch.Generator` are not changed.

    Args:
        length: number of images in the shard.
        start: index of its first image in the whole batch.
        total: number of images in the whole batch.

    Raises:
        NoiseError: for noise with no axis of the shard's length, or with two leading ones of three or five, and for
            operations that may draw more random values for some images than for others.
    """

    def __init__(self, length: int, start: int, total: int) -> None:
        super().__init__()
        self.length, self.start, self.total = length, start, total

    def __torch_dispatch__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if torch.Tag.nondeterministic_seeded not in func.tags or _is_still(func, args, kwargs):
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name not in STEADY:
            raise NoiseError(self._refusal(name, "may draw more numbers for some images than for others"))
        if name == "multinomial" and args[1] == self.length and args[0].shape[0] != self.length:
            return self._mine(func(args[0], self.total, *args[2:], **kwargs), axis=-1)
        whole_args = [self._whole(arg, name) for arg in args]
        whole = func(*whole_args, **{key: self._whole(value, name) for key, value in kwargs.items()})
        if name.endswith("_"):  # in place
            return args[0].copy_(self._mine(whole, self._axis(args[0].shape, name)))
        axis = self._axis(_shape(args, name), name)
        return tuple(self._mine(part, axis) for part in whole) if isinstance(whole, tuple) else self._mine(whole, axis)

    def _mine(self, whole: Tensor, axis: int) -> Tensor:
        return whole.narrow(axis, self.start, self.length).contiguous()

    def _whole(self, value: Any, name: str) -> Any:
        """An argument of an operation on the shard, expanded to the whole batch."""
        if isinstance(value, Tensor) and value.dim() and self.length in value.shape:
            axis = self._axis(value.shape, name)
            whole = value.new_ones([*value.shape[:axis], self.total, *value.shape[axis + 1 :]])
            whole.narrow(axis, self.start, self.length).copy_(value)
            return whole
        if isinstance(value, list | tuple) and value and all(isinstance(size, int) for size in value):
            axis = self._axis(value, name)
            return [*value[:axis], self.total, *value[axis + 1 :]]
        return value

    def _axis(self, shape: Sequence[int], name: str) -> int:
        axes = [axis for axis, size in enumerate(shape) if size == self.length]
        if not axes:
            raise NoiseError(self._refusal(name, f"draws noise of shape {tuple(shape)}"))
        if len(shape) in (3, 5) and axes[:2] == [0, 1]:  # (K, B, …) or (B, K, …)
            raise NoiseError(self._refusal(name, f"draws noise of shape {tuple(shape)}, with two such axes"))
        return axes[0]

    def _refusal(self, name: str, what: str) -> str:
        return (
            f"several devices: torch.{name} {what}; noise must have a single axis for the images of a device's share "
            f"of the batch, here {self.length}. Draw noise that is not per image from its own torch.Generator, or "
            "train on one device"
        )


def _shape(args: Sequence[Any], name: str) -> Sequence[int]:
    """The shape that a random operation returns for a shard."""
    shapes = [arg.shape for arg in args if isinstance(arg, Tensor) and arg.dim()]
    sizes = [arg for arg in args if isinstance(arg, list | tuple)]
    return torch.broadcast_shapes(*shapes) if shapes else sizes[0]


def _is_still(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Returns whether the call draws nothing from the shared random state."""
    given = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | dict(kwargs)
    if given.get("generator") is not None or given.get("train") is False:
        return True
    return given.get("dropout_p") == 0
