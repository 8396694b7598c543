"""Batch normalisation with statistics over the whole batch, across processes."""

from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pytorch_lightning.plugins.layer_sync import LayerSync
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["SharedBatchNorm", "SharedBatchNorms"]

Module = TypeVar("Module", bound=nn.Module)


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation with statistics over all processes, on any device.

    PyTorch's `SyncBatchNorm` supports GPUs only.

    Attributes:
        alone: the layer's original class.
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
        return _Sum.apply(gradients[0])  # which has a gradient again, for penalties on gradients


def _sum(tensor: Tensor) -> Tensor:
    """The sum over all processes; gradients are summed as well."""
    return _Sum.apply(tensor)


class SharedBatchNorms(LayerSync):
    """Turns a model's batch norms into shared ones while it is trained in several processes.

    Only the class of each layer changes, temporarily, so optimizers and checkpoints are unaffected.
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
