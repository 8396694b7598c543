"""One training in several processes, one for each device: who starts them, and how they learn what to train.

On one machine `vae-train` starts the others itself, for each job anew, by the configuration that the first process has
composed. Under torchrun they are there already, and wait for the first process to say what comes next; only that one
reads the command line. In a SLURM step of several tasks, each has composed the job's configuration itself.
"""

import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from torch.distributed import TCPStore

__all__ = ["ProcessError", "Processes", "is_connection_loss", "is_member", "join_jobs", "no_more_jobs"]

log = logging.getLogger(__name__)

MEMBER = "VAE_MEMBER_OF"  # folder of the run that this process has been started for
STOPPED = (0, 130, 143)  # how a process ends that has done what it was asked to
GRACE_SECONDS = 60.0


class ProcessError(RuntimeError):
    """Another process of the training has failed."""


class Processes:
    """The processes of one training; a context in which a trainer is built and runs.

    Args:
        trainer: the node of the configuration.
    """

    def __init__(self, trainer: Mapping[str, Any]) -> None:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        several = trainer.get("devices", 1) != 1 or str(trainer.get("strategy", "auto")) != "auto"
        ours = several and not (_under_torchrun() or SLURMEnvironment.detect())
        # It tells Lightning that the other processes are not its own to start.
        self.variables = {"LOCAL_RANK": "0", "NODE_RANK": "0"} if ours else {}
        self.others: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self.left = threading.Event()

    def __enter__(self) -> "Processes":
        self.before = dict(os.environ)
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        return self

    def start(self, trainer: "Trainer", folder: Path) -> None:
        """Has the other processes, if there are any, join the run in a folder, whose configuration is on disk."""
        from lightning_fabric.plugins.environments import LightningEnvironment

        environment = trainer.strategy.cluster_environment if trainer.world_size > 1 else None  # type: ignore[attr-defined]
        if environment is None or not trainer.is_global_zero:
            return
        if _under_torchrun():
            Torchrun.announce(folder)
        elif isinstance(environment, LightningEnvironment):
            address = {"MASTER_ADDR": environment.main_address, "MASTER_PORT": str(environment.main_port)}
            threads = str(max(1, (os.cpu_count() or 1) // trainer.world_size))
            shared = {"OMP_NUM_THREADS": threads, **os.environ, **address, MEMBER: str(folder.resolve())}
            for rank in range(1, trainer.world_size):
                said = tempfile.TemporaryFile()  # noqa: SIM115 -- it lives as long as the process
                command = [sys.executable, "-m", "vae_lightning.cli"]
                settings = {**shared, "LOCAL_RANK": str(rank)}
                process = subprocess.Popen(command, env=settings, stdout=subprocess.DEVNULL, stderr=said)
                self.others.append((process, said))
            threading.Thread(target=self._watch, daemon=True).start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        import torch

        self.left.set()
        try:
            failure = None
            if error is None or is_connection_loss(error):  # else they cannot go on either
                failure = self._failure(10)
            for process, _ in self.others:
                if error is not None and not (isinstance(error, SystemExit) and _ends(process, 10)):
                    process.terminate()
                if not _ends(process, 10):
                    process.kill()
            if torch.distributed.is_available() and torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()
        finally:
            for name in set(os.environ) - set(self.before):
                if name in (*self.variables, "MASTER_ADDR", "MASTER_PORT"):
                    del os.environ[name]
            os.environ.update(self.before)
        if failure:
            raise ProcessError(failure) from error

    def _watch(self) -> None:
        """Ends this process where another one has failed and this one waits for it without noticing."""
        while not self.left.wait(1):
            if (failure := self._failure(0)) and not self.left.wait(GRACE_SECONDS):
                print(failure, file=sys.stderr, flush=True)
                os._exit(1)

    def _failure(self, seconds: float) -> str:
        """How the first of them failed; empty where none has."""
        for rank, (process, said) in enumerate(self.others, start=1):
            if _ends(process, seconds) and process.returncode not in STOPPED:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                code = process.returncode
                how = f"ended with exit code {code}" if code > 0 else f"was ended by signal {-code}"
                return f"process {rank} of the training {how}" + (f": {lines[-1]}" if lines else "")
        return ""


def _ends(process: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def is_connection_loss(error: BaseException) -> bool:
    """Whether this is what a process sees when another one is gone."""
    from torch.distributed import DistError

    return isinstance(error, DistError) or any(name in str(error) for name in ("gloo", "NCCL", "Connection closed"))


def is_member() -> bool:
    """Whether this process is not the first one of a training, and trains what that one says."""
    return MEMBER in os.environ or (_under_torchrun() and os.environ["RANK"] != "0")


def join_jobs(train: Callable[[Path], object]) -> None:
    """Takes part in one job after the other, until there are no more; fails as the first of them that fails does.

    Args:
        train: what to do with the folder of a job's run.
    """
    if folder := os.environ.get(MEMBER):
        train(Path(folder))
        return
    for folder, port in Torchrun.jobs():
        with _environment(_meeting(port)):
            train(Path(folder))


def no_more_jobs() -> None:
    """Sends the processes that torchrun has started home; the first process calls it last."""
    if _under_torchrun() and os.environ["RANK"] == "0" and int(os.environ["WORLD_SIZE"]) > 1:
        Torchrun.tell({})


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


class Torchrun:
    """The messages by which the first process that torchrun has started tells the others what to train.

    torchrun's own store carries them. Each job's processes meet at a port of their own, because what the last
    job's left in a store would mislead the next.
    """

    told: ClassVar[int] = 0
    _store: "ClassVar[TCPStore | None]" = None

    @classmethod
    def store(cls) -> "TCPStore":
        if cls._store is None:
            from torch.distributed import TCPStore

            address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
            cls._store = TCPStore(address, port, is_master=False, timeout=timedelta(days=365))
        return cls._store

    @staticmethod
    def key(number: int) -> str:
        return f"vae_lightning/{os.environ['TORCHELASTIC_RESTART_COUNT']}/{number}"

    @classmethod
    def tell(cls, message: dict[str, Any]) -> None:
        cls.store().set(cls.key(cls.told), json.dumps(message))
        cls.told += 1

    @classmethod
    def announce(cls, folder: Path) -> None:
        """Tells the others about the next job, and where its processes meet."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = str(free.getsockname()[1])
        cls.tell({"folder": str(folder.resolve()), "port": port})
        os.environ.update(_meeting(port))

    @classmethod
    def jobs(cls) -> Iterator[tuple[str, str]]:
        """Folders and ports of the jobs, as they are announced."""
        number = 0
        while message := json.loads(cls.store().get(cls.key(number))):
            yield message["folder"], message["port"]
            number += 1


def _meeting(port: str) -> dict[str, str]:
    return {"MASTER_PORT": port, "TORCHELASTIC_USE_AGENT_STORE": "False"}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.update(before)
