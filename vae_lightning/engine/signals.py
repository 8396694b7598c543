"""Signals that stop a run after the current step, with its state saved."""

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
    """Raised when a signal has stopped the run.

    It is not an `Exception`, so it ends a whole sweep and not only the current job.
    """


class Interruption:
    """A context in which the first SIGINT or SIGTERM stops training after the current step, and a second one at once.

    Outside the training loop, or if no callback saves the state, the first one also stops at once. In a job started by
    submitit, SIGUSR2 announces that the job's time is nearly up: the state is saved and submitit requeues the job. The
    scheduler's SIGTERM is then ignored.

    Args:
        trainer: the trainer to interrupt.
        keeps_state: whether a callback polls `requested` after each step and then saves the state.
    """

    def __init__(self, trainer: "Trainer", keeps_state: bool) -> None:
        self.trainer = trainer
        self.keeps_state = keeps_state
        self.number = 0
        self._requeue: Handler | None = None
        self._before: dict[int, Handler | int | None] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():  # only it receives signals
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
        """Reinstalls the SIGTERM handler, which Lightning replaces when training starts and when testing starts."""
        if signal.SIGTERM in self._before:
            signal.signal(signal.SIGTERM, self._receive)

    def requested(self) -> int:
        """Returns the signal received by any process, 0 for none; processes synchronise every ten steps."""
        if self.trainer.world_size == 1:
            return self.number
        if self.trainer.global_step % 10:
            return 0
        import torch

        number = torch.tensor(self.number, device=self.trainer.strategy.root_device)
        return int(self.trainer.strategy.reduce(number, reduce_op="max"))

    def stop(self, number: int) -> None:
        """Ends the run after its state has been saved.

        Raises:
            Interrupted: with the shell's exit code for a process ended by the signal.
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
