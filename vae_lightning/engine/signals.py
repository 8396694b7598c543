"""Signals that ask a training to stop: after the step that is being taken, with its state kept."""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

__all__ = ["Interrupted", "Interruption"]

Handler = Callable[[int, FrameType | None], object]


class Interrupted(SystemExit):
    """The training was asked to stop, and has stopped after a whole step with its state kept.

    It is no `Exception`: it ends a sweep as well as a job.
    """


class Interruption:
    """A context in which the first SIGINT or SIGTERM stops a training after the current step, a second one at once.

    Outside a training loop, and where there is nothing that would keep the state, the first one stops at once as well.
    In a job that submitit has started, its SIGUSR2 announces the end of the job's time: the state is kept, and submitit
    queues the job once more. SIGTERM, which a scheduler sends beside it, is then ignored.

    Args:
        trainer: whose training may be interrupted.
        keeps_state: whether a callback asks `requested` after each step and then keeps the training's state.
    """

    def __init__(self, trainer: "Trainer", keeps_state: bool) -> None:
        self.trainer = trainer
        self.keeps_state = keeps_state
        self.number = 0
        self._requeue: Handler | None = None
        self._before: dict[int, Handler | int | None] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # signals go to that one
            announced = signal.getsignal(signal.SIGUSR2)
            if self.keeps_state and callable(announced):
                self._requeue = announced
            numbers = (signal.SIGINT, signal.SIGUSR2 if self._requeue else signal.SIGTERM)
            self._before = {number: signal.signal(number, self._receive) for number in numbers}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def hold(self) -> None:
        """Takes SIGTERM back from Lightning, which sets its own handler when a training starts."""
        if signal.SIGTERM in self._before:
            signal.signal(signal.SIGTERM, self._receive)

    def requested(self) -> int:
        """Returns the signal on which all processes of a training agree, 0 for none; they confer every ten steps."""
        if self.trainer.world_size == 1:
            return self.number
        if self.trainer.global_step % 10:
            return 0
        import torch

        number = torch.tensor(self.number, device=self.trainer.strategy.root_device)
        return int(self.trainer.strategy.reduce(number, reduce_op="max"))

    def stop(self, number: int) -> None:
        """Ends the training, whose state has been kept.

        Raises:
            Interrupted: with the exit code that a shell gives to a process ended by the signal.
        """
        if number == signal.SIGUSR2 and self._requeue:
            self._requeue(number, None)
        raise Interrupted(128 + number)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        training = bool(self.trainer.training)
        if number == signal.SIGUSR2 and not training and self._requeue:
            self._requeue(number, frame)
        if self.number or not (self.keeps_state and training):
            raise Interrupted(128 + number)
        self.number = number
