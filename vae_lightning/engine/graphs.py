"""Training steps recorded as a CUDA graph: the kernels of a whole step are launched at once instead of one by one."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["CapturedStep", "make_capturable"]


class CapturedStep:
    """A training step that runs as it is for a few batches, is then recorded, and from then on is replayed.

    Every call is one step of the training, before the recording as after. Batches of another shape than the first,
    such as the last, shorter one of an epoch, are never recorded.

    Args:
        step: forward, backward and optimizer step on a batch, a named tuple of tensors or None; returns what it
            reports. It must neither read anything back from the device nor depend on the batch but by its values.

    Raises:
        RuntimeError: if the step cannot be recorded.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
    """

    steps_before = 3  # the first steps allocate the optimizer's state and the libraries' workspaces

    def __init__(self, step: Callable[[Any], Tensor]) -> None:
        self.step = step
        self.steps = 0
        self.input: Any = None
        self.output: Tensor | None = None
        self.replay: Callable[[], None] | None = None

    def __call__(self, batch: Any) -> Tensor:
        if self.input is None:
            self.input = type(batch)(*(None if part is None else part.clone() for part in batch))
        if _shapes(batch) != _shapes(self.input):
            return self.step(batch)
        self.steps += 1
        if self.steps <= self.steps_before:
            return self.warm_up(batch)
        for kept, part in zip(self.input, batch, strict=True):
            if kept is not None:
                kept.copy_(part)
        if self.replay is None:
            self.replay, self.output = self.record(self.input)
        self.replay()
        assert self.output is not None
        return self.output.clone()  # the next replay writes there again

    def warm_up(self, batch: Any) -> Tensor:
        """Takes a step on a stream of its own, as recording wants it."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            output = self.step(batch)
        main.wait_stream(side)
        return output

    def record(self, batch: Any) -> tuple[Callable[[], None], Tensor]:
        """Records the step on this batch without taking it; returns the way to take it and where it reports."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self.step(batch)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RuntimeError(
                f"engine.cuda_graph=true: the step cannot be recorded ({reason}); set it to false"
            ) from error
        return graph.replay, output


def _shapes(batch: Any) -> list[torch.Size | None]:
    return [None if part is None else part.shape for part in batch]


def make_capturable(optimizer: Optimizer) -> None:
    """Tells an optimizer to keep its step counter on the device, where it does not do so anyway."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
