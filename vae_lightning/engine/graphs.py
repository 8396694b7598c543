"""Training steps recorded as a CUDA graph: the kernels of a whole step are launched at once instead of one by one."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["CapturedStep", "make_capturable"]


class CapturedStep:
    """A training step that runs as it is for a few batches, is then recorded, and from then on is replayed.

    Every call is one step of the training, before the recording as after. Batches of another shape than the first,
    such as the last, shorter one of an epoch, are never recorded.

    Args:
        step: forward, backward and optimizer step on images `(B, C, H, W)`; returns what it reports. It must neither
            read anything back from the device nor depend on the batch but by its values.

    Raises:
        RuntimeError: if the step cannot be recorded.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture.
    """

    steps_before = 3  # the first steps allocate the optimizer's state and the libraries' workspaces

    def __init__(self, step: Callable[[Tensor], Tensor]) -> None:
        self.step = step
        self.steps = 0
        self.input: Tensor | None = None
        self.output: Tensor | None = None
        self.replay: Callable[[], None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self.input is None:
            self.input = x.clone()
        if x.shape != self.input.shape:
            return self.step(x)
        self.steps += 1
        if self.steps <= self.steps_before:
            return self.warm_up(x)
        self.input.copy_(x)
        if self.replay is None:
            self.replay, self.output = self.record(self.input)
        self.replay()
        assert self.output is not None
        return self.output.clone()  # the next replay writes there again

    def warm_up(self, x: Tensor) -> Tensor:
        """A step on a stream of its own, as recording wants it."""
        main, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(main)
        with torch.cuda.stream(side):
            output = self.step(x)
        main.wait_stream(side)
        return output

    def record(self, x: Tensor) -> tuple[Callable[[], None], Tensor]:
        """Records the step on these images without taking it; returns the way to take it and where it reports."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                output = self.step(x)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise RuntimeError(
                f"model.cuda_graph=true: the step cannot be recorded ({reason}); set it false"
            ) from error
        return graph.replay, output


def make_capturable(optimizer: Optimizer) -> None:
    """Tells an optimizer to keep its step counter on the device, where it does not do so anyway."""
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = True
