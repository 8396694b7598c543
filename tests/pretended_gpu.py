"""A second device without one: tensors that are marked as being on it, and an error where one meets one that is not.

What PyTorch refuses on a machine with a GPU is refused here: operations on tensors of both devices (but single numbers,
and an index from the CPU), a view of NumPy of a tensor that is not on the CPU, and, as by Apple's GPUs, 64 bits. All is
calculated on the CPU.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

__all__ = ["GPU", "moved", "pretended"]

GPU = torch.device("mps", 0)  # Apple's, which has no 64 bits
TO_CPU = {Tensor.cpu}
NUMBERS = {Tensor.item, Tensor.tolist, Tensor.__bool__, Tensor.__float__, Tensor.__int__, Tensor.__len__}
ON_CPU_ALONE = {Tensor.numpy, Tensor.__array__}
INDEXED = {Tensor.__getitem__, Tensor.__setitem__}
COPIES = {Tensor.copy_}


def marked(tensor: Any) -> bool:
    return isinstance(tensor, Tensor) and getattr(tensor, "on_gpu", False)


def mark(found: Any) -> Any:
    """Marks the tensors in what was found."""

    def each(tensor: Any) -> Any:
        if isinstance(tensor, Tensor):
            tensor.on_gpu = True
        return tensor

    return pytree.tree_map(each, found)


def is_gpu(device: Any) -> bool:
    return device is not None and not isinstance(device, Tensor) and str(device).startswith(GPU.type)


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [each for each in pytree.tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        ours = [tensor for tensor in tensors if marked(tensor)]
        name = getattr(func, "__name__", "")
        if name == "__get__" and ours:
            owner = getattr(func.__self__, "__name__", "")
            if owner == "device":
                return GPU
            if owner == "is_cpu":
                return False
        if name == "__set__" and func.__self__.__name__ == "data":  # how a module moves its parameters
            args[0].on_gpu = marked(args[1])
            return func(*args, **kwargs)
        if func is torch._has_compatible_shallow_copy_type:
            return func(*args, **kwargs)
        if name == "__deepcopy__":  # its second argument knows other copies
            found = func(*args, **kwargs)
            return mark(found) if marked(args[0]) else found
        if func is Tensor.to:
            return self._to(func, args, kwargs)
        if func in TO_CPU:
            return args[0].detach().clone() if marked(args[0]) else func(*args, **kwargs)
        if func in ON_CPU_ALONE and ours:
            raise TypeError("can't convert a tensor on the pretended GPU to numpy")
        if func in NUMBERS:
            return func(*args, **kwargs)
        others = [tensor for tensor in tensors if not marked(tensor) and tensor.dim() > 0]
        if ours and others and func not in COPIES and not (func in INDEXED and marked(args[0])):
            raise RuntimeError(f"{name}: expected all tensors to be on the same device")
        made = is_gpu(kwargs.get("device"))
        if made:
            kwargs["device"] = "cpu"
        found = func(*args, **kwargs)
        if ours or made:
            for each in pytree.tree_leaves(found):
                if isinstance(each, Tensor) and each.dtype == torch.float64 and name != "__get__":
                    raise TypeError(f"{name}: no 64 bits on the pretended GPU")
        inplace = func in COPIES and not marked(args[0])
        return mark(found) if (ours or made) and not inplace else found

    def _to(self, func: Callable, args: tuple, kwargs: dict[str, Any]) -> Any:
        tensor, *rest = args
        asked = [*rest, *kwargs.values()]
        gpu = any(is_gpu(each) or marked(each) for each in asked)
        cpu = any(str(each) == "cpu" or (isinstance(each, Tensor) and not marked(each)) for each in asked)
        rest = ["cpu" if is_gpu(each) else each for each in rest]
        kwargs = {key: "cpu" if is_gpu(each) else each for key, each in kwargs.items()}
        found = func(tensor, *rest, **kwargs)
        if gpu or (marked(tensor) and not cpu):
            return mark(found if found is not tensor or marked(tensor) else found.clone())
        return found.clone() if found is tensor and marked(tensor) else found


def moved(module: nn.Module) -> nn.Module:
    """Marks a module's parameters and buffers, and says so as its `device`."""
    for tensor in (*module.parameters(), *module.buffers()):
        mark(tensor)
    for each in module.modules():
        if hasattr(each, "_device"):
            each._device = GPU
    return module


@contextmanager
def pretended() -> Iterator[None]:
    """A context in which marked tensors are on another device."""
    copied = nn.Parameter.__deepcopy__

    def copy(self: nn.Parameter, memo: dict) -> nn.Parameter:
        found = copied(self, memo)
        return mark(found) if marked(self) else found

    nn.Parameter.__deepcopy__ = copy  # type: ignore[method-assign]
    try:
        with _Mode():
            yield
    finally:
        nn.Parameter.__deepcopy__ = copied  # type: ignore[method-assign]
