"""Training in several processes, one per device: how they are started and told what to train.

On a single machine, `vae-train` starts the other processes for each job, with the configuration composed by the first.
Under torchrun they already exist and wait for the first process, the only one that reads the command line, to announce
the next job. In a SLURM step with several tasks, each task composes the configuration itself.
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

MEMBER = "VAE_MEMBER_OF"  # folder of the run that this process was started for
STOPPED = (0, 130, 143)  # exit codes of a process that finished, or stopped on request
GRACE_SECONDS = 60.0


class ProcessError(RuntimeError):
    """Raised when another process of the training has failed."""


class Processes:
    """The processes of one training, as a context in which the trainer is built and run.

    Args:
        trainer: the configuration's `trainer` node.
    """

    def __init__(self, trainer: Mapping[str, Any]) -> None:
        from lightning_fabric.plugins.environments import SLURMEnvironment

        several = trainer.get("devices", 1) != 1 or str(trainer.get("strategy", "auto")) != "auto"
        ours = several and not (_under_torchrun() or SLURMEnvironment.detect())
        # Keeps Lightning from starting the other processes itself.
        self.variables = {"LOCAL_RANK": "0", "NODE_RANK": "0"} if ours else {}
        self.others: list[tuple[subprocess.Popen[bytes], IO[bytes]]] = []
        self.left = threading.Event()

    def __enter__(self) -> "Processes":
        self.before = dict(os.environ)
        for name, value in self.variables.items():
            os.environ.setdefault(name, value)
        return self

    def start(self, trainer: "Trainer", folder: Path) -> None:
        """Makes the other processes, if any, join the run in a folder that already has its configuration on disk."""
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
                said = tempfile.TemporaryFile()  # noqa: SIM115 -- must live as long as the process
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
            if error is None or is_connection_loss(error):  # after any other error they cannot continue either
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
        """Ends this process if another one has failed and this one is still waiting for it."""
        while not self.left.wait(1):
            if (failure := self._failure(0)) and not self.left.wait(GRACE_SECONDS):
                print(failure, file=sys.stderr, flush=True)
                os._exit(1)

    def _failure(self, seconds: float) -> str:
        """A message about the first process that failed; empty if none has."""
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
    """Returns whether an error means that the connection to another process was lost."""
    from torch.distributed import DistError

    # Gloo, and NCCL outside DistError, raise plain RuntimeErrors, which only their text tells from others.
    return isinstance(error, DistError) or any(name in str(error) for name in ("gloo", "NCCL", "Connection closed"))


def is_member() -> bool:
    """Returns whether this process follows the first process of a training."""
    return MEMBER in os.environ or (_under_torchrun() and os.environ["RANK"] != "0")


def join_jobs(train: Callable[[Path], object]) -> None:
    """Joins one job after another until there are no more; an exception in a job ends this process, too.

    Args:
        train: called with the folder of each job's run.
    """
    if folder := os.environ.get(MEMBER):
        train(Path(folder))
        return
    for folder, port in Torchrun.jobs():
        with _environment(_meeting(port)):
            train(Path(folder))


def no_more_jobs() -> None:
    """Ends the other processes started by torchrun; called last, by the first process."""
    if _under_torchrun() and os.environ["RANK"] == "0" and int(os.environ["WORLD_SIZE"]) > 1:
        Torchrun.tell({})


def _under_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


class Torchrun:
    """Messages, in torchrun's store, by which the first process tells the others what to train.

    The processes of each job connect on a new port, because a previous job leaves entries in its store that would
    confuse the next one.
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
        """Announces the next job and its port to the other processes."""
        with socket.socket() as free:
            free.bind(("", 0))
            port = str(free.getsockname()[1])
        cls.tell({"folder": str(folder.resolve()), "port": port})
        os.environ.update(_meeting(port))

    @classmethod
    def jobs(cls) -> Iterator[tuple[str, str]]:
        """Yields the folder and port of each job as it is announced."""
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
