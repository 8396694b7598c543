"""Commands in processes that are forked from one which has imported PyTorch and the rest: that takes seconds each time.

`Forked` has what the tests need of `subprocess.Popen`. The process they are forked from, this file as a program, is
shared by all test processes.
"""

import atexit
import gc
import json
import os
import runpy
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Forked", "start"]

SOCKET = "VAE_TEST_SOCKET"


def start() -> None:
    """Starts the process that others are forked from; it ends with this one."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[SOCKET] = str(Path(folder, "socket"))
    paths = os.pathsep.join(path for path in sys.path if path)
    settings = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}  # too late once PyTorch is there
    server = subprocess.Popen([sys.executable, __file__, os.environ[SOCKET]], env=settings, stdin=subprocess.DEVNULL)
    atexit.register(server.wait)
    atexit.register(server.kill)
    while not Path(os.environ[SOCKET]).exists() and server.poll() is None:
        time.sleep(0.01)


class Forked:
    """Runs `python -m module` in a process of its own, with its output in files."""

    def __init__(
        self,
        module: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        stdout: str,
        stderr: str,
    ) -> None:
        if SOCKET not in os.environ:
            start()
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(os.environ[SOCKET])
        request = json.dumps([module, list(arguments), str(folder), dict(environment), stdout, stderr])
        self.connection.sendall(request.encode() + b"\n")
        self.replies = self.connection.makefile()
        self.pid = int(self.replies.readline())

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        """Returns the exit code, or minus the signal that ended it."""
        self.connection.settimeout(timeout)
        try:
            return int(self.replies.readline())
        except TimeoutError:
            self.send_signal(signal.SIGKILL)
            raise subprocess.TimeoutExpired(str(self.pid), timeout) from None
        finally:
            self.connection.close()


class Server(socketserver.ForkingMixIn, socketserver.UnixStreamServer):
    request_queue_size = 20
    started_by = os.getppid()

    def service_actions(self) -> None:
        super().service_actions()
        if os.getppid() != self.started_by:  # which was killed
            sys.exit()


class Handler(socketserver.StreamRequestHandler):
    """Forks the command's process from this one, which tells of it."""

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        if not (pid := os.fork()):
            run(*request)
        self.wfile.write(f"{pid}\n".encode())
        _, status = os.waitpid(pid, 0)
        self.wfile.write(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def run(
    module: str, arguments: Sequence[str], folder: str, environment: Mapping[str, str], stdout: str, stderr: str
) -> None:
    """Does what `python -m module` does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, file in ((1, stdout), (2, stderr)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout, sys.stderr = (open(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))  # noqa: SIM115
    paths = [os.path.abspath(path) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]  # noqa: PTH100
    sys.path[:0] = [folder, *paths]
    found = find_spec(module)
    sys.argv = [str(found and found.origin), *arguments]
    code = 0
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else int(done.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def serve(address: str) -> None:
    with Server(f"{address}.new", Handler) as server:
        Path(f"{address}.new").rename(address)  # from now on commands wait, or fail at once if an import does
        import vae_lightning.report.page
        import vae_lightning.report.picture
        import vae_lightning.training  # noqa: F401

        gc.freeze()  # nothing that is imported by now is looked through again in the processes that are forked
        server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1])
