"""Loops that take turns: each in a process of its own, which waits while another one runs.

So a machine that slows down for a while slows all of them, and the ratio of two loops in one round is theirs. The
processes are `python turns.py MODULE FUNCTION ARGUMENTS COUNT STEPS`; only the standard library is needed here, because
the loop may be of another library, in an environment of its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

__all__ = ["Loop", "Turns"]


class Turns:
    """The turns of one loop, and how long each took.

    Args:
        count: number of turns.
        steps: minimum number of steps in a turn.
        between: called before the first turn with None, and after each turn with its seconds per step; returns when the
            next turn may start.

    Attributes:
        seconds: mean seconds per step, one value per turn.
    """

    def __init__(self, count: int, steps: int, between: Callable[[float | None], None] = lambda seconds: None) -> None:
        self.count = count
        self.steps = steps
        self.between = between
        self.seconds: list[float] = []
        self._since = 0.0

    def start(self) -> None:
        """Called before the first step."""
        self.between(None)
        self._since = time.perf_counter()

    def end(self, steps: int) -> None:
        """Called when so many steps are done, and the device with them."""
        self.seconds.append((time.perf_counter() - self._since) / steps)
        self.between(self.seconds[-1])
        self._since = time.perf_counter()


class Loop:
    """A loop in another process.

    Args:
        function: `module.function`, called with the arguments and `Turns`.
        arguments: that JSON can express.
        count: number of turns.
        steps: minimum number of steps in a turn.
        python: interpreter of the loop's environment.

    Attributes:
        seconds_to_first_step: since the process was started.
    """

    def __init__(
        self, function: str, arguments: Sequence[object], count: int, steps: int, python: str = sys.executable
    ) -> None:
        self.name = function
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [python, __file__, *function.rsplit(".", 1), json.dumps(arguments), str(count), str(steps)]
        started = time.time()
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True, bufsize=1
        )
        self.seconds_to_first_step = self._receive() - started

    def turn(self) -> float:
        """Lets it take a turn; returns its seconds per step."""
        return self._answer()

    def finish(self) -> dict[str, Any]:
        """Lets it end; returns its `result`, and its peaks of memory, `host_mib` and `device_mib`."""
        found = self._answer()
        self.process.wait()
        return found

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return self._receive()

    def _receive(self) -> Any:
        assert self.process.stdout is not None
        if line := self.process.stdout.readline():
            return json.loads(line)
        self._errors.seek(0)
        sys.exit(f"{self.name} failed:\n{self._errors.read()}")


def _serve(module: str, function: str, arguments: str, count: str, steps: str) -> None:
    # What the loop prints goes to the errors.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def between(seconds: float | None) -> None:
        answers.write(json.dumps(time.time() if seconds is None else seconds) + "\n")
        sys.stdin.readline()

    result = getattr(import_module(module), function)(*json.loads(arguments), Turns(int(count), int(steps), between))
    answers.write(json.dumps({"result": result, "host_mib": _host_mib(), "device_mib": _device_mib()}) + "\n")


def _host_mib() -> float:
    """This process's own peak; `getrusage` would count the parent's as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (peak,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


def _device_mib() -> float:
    torch: Any = sys.modules.get("torch")
    return torch.cuda.max_memory_allocated() / 2**20 if torch and torch.cuda.is_available() else 0.0


if __name__ == "__main__":
    _serve(*sys.argv[1:])
