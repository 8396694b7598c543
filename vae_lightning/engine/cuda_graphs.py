"""Training steps recorded as a CUDA graph, which launches all kernels of a step at once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..errors import first_line

__all__ = ["CapturedStep", "make_capturable"]


class CapturedStep:
    """A training step that runs normally for a few batches, is then recorded, and is replayed from then on.

    Every call takes one training step, before and after recording. Batches whose shape differs from the first, such as
    a shorter last batch of an epoch, are never replayed.

    Args:
        step: forward, backward and optimizer step on a batch, a named tuple of tensors or None; returns the values to
            report. It must not read anything back from the device, and may depend only on the values of the batch.

    Raises:
        RuntimeError: if the step cannot be recorded.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
    """

    steps_before = 3  # the first steps allocate optimizer state and library workspaces

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
        return self.output.clone()  # the next replay overwrites it

    def warm_up(self, batch: Any) -> Tensor:
        """Takes a step on a side stream, as required before recording."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            output = self.step(batch)
        main.wait_stream(side)
        return output

    def record(self, batch: Any) -> tuple[Callable[[], None], Tensor]:
        """Records the step on this batch without taking it; returns the replay function and the output tensor."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self.step(batch)
        except RuntimeError as error:
            raise RuntimeError(
                f"engine.cuda_graph=true: the step cannot be recorded ({first_line(error)}); set it to false"
            ) from error
        # Recording ends with the graph's noise reset, on a stream of its own. On a busy device the first replay, which
        # sets it, could otherwise come first, and would then draw other noise.
        torch.cuda.synchronize()
        return graph.replay, output


def _shapes(batch: Any) -> list[torch.Size | None]:
    return [None if part is None else part.shape for part in batch]


def make_capturable(optimizer: Optimizer) -> None:
    """Makes an optimizer keep its step counter on the device, if it has that option."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
