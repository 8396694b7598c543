"""One batch in several processes: which part of it is whose, noise and batch statistics of the whole.

A training on several devices is the training on one, but for the order in which numbers are added: `batch_size` counts
the images of all devices together, each image gets the noise that it would get on one, and batch norm sees all of them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.distributions import Normal
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["Shard", "SharedBatchNorm", "SharedBatchNorms", "SharedNormal", "bounds", "rand", "whole_batch"]

Module = TypeVar("Module", bound=nn.Module)


class Shard(NamedTuple):
    """This process's share of a batch.

    Attributes:
        batch: whatever the model is trained on; it may be empty.
        start: position of its first image in the whole batch.
        total: number of images in the whole batch.
    """

    batch: Any
    start: int
    total: int


def bounds(total: int, rank: int, processes: int) -> tuple[int, int]:
    """Where a process's part of a batch starts and ends; parts differ by one image at most.

    >>> [bounds(10, rank, 4) for rank in range(4)]
    [(0, 2), (2, 5), (5, 7), (7, 10)]
    """
    return total * rank // processes, total * (rank + 1) // processes


_part: Shard | None = None


@contextmanager
def whole_batch(batch: Sequence[object]) -> Iterator[None]:
    """Inside it, noise is drawn for the whole batch of which `batch` is a `Shard`; nothing changes for other batches."""
    global _part
    _part = batch if isinstance(batch, Shard) and batch.total > 1 else None
    try:
        yield
    finally:
        _part = None


class SharedNormal(Normal):
    """A normal distribution of a batch `(B, …)` that draws by `whole_batch`."""

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        if _part is None or self.batch_shape[:1] != (len(_part.batch[0]),):
            return super().rsample(torch.Size(sample_shape))
        shape = (*sample_shape, _part.total, *self.batch_shape[1:])
        noise = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        return self.loc + self.scale * noise.narrow(len(sample_shape), _part.start, len(_part.batch[0]))


def rand(images: Tensor) -> Tensor:
    """Uniform noise of the shape of images `(B, C, H, W)`, drawn by `whole_batch`."""
    if _part is None:
        return torch.rand_like(images)
    noise = torch.rand(_part.total, *images.shape[1:], dtype=images.dtype, device=images.device)
    return noise[_part.start : _part.start + len(images)]


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation with the statistics of all processes' images, on any device and also for no image at all.

    PyTorch's own is for GPUs only.

    Attributes:
        alone: the layer's class where it is not shared.
    """

    alone: type[_BatchNorm]

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes, shape = [0, *range(2, x.dim())], [1, -1] + [1] * (x.dim() - 2)
        count = _sum(x.new_tensor(x.numel() / x.shape[1]))
        mean = _sum(x.sum(axes)) / count
        variance = _sum((x - mean.view(shape)).square().sum(axes)) / count
        self._update(mean.detach(), (variance * count / (count - 1)).detach())
        scale = (variance + self.eps).rsqrt() * (self.weight if self.affine else 1)
        normal = (x - mean.view(shape)) * scale.view(shape)
        return (normal + self.bias.view(shape) if self.affine else normal).to(input.dtype)

    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        weight = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Sum.forward(ctx, gradients[0])


def _sum(tensor: Tensor) -> Tensor:
    """The sum over all processes, of gradients as well."""
    return _Sum.apply(tensor)


class SharedBatchNorms(LayerSync):
    """Makes a model's batch norms shared ones while it is trained in several processes.

    They stay the layers that they are, of another class for a while: optimizer and checkpoints see no difference.
    """

    def apply(self, model: Module) -> Module:
        for layer in model.modules():
            if isinstance(layer, _BatchNorm) and not isinstance(layer, SharedBatchNorm):
                layer.alone, layer.__class__ = type(layer), SharedBatchNorm  # type: ignore[assignment]
        return model

    def revert(self, model: Module) -> Module:
        for layer in model.modules():
            if isinstance(layer, SharedBatchNorm):
                layer.__class__ = layer.alone  # type: ignore[assignment]
        return model
