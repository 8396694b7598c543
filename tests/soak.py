"""Many tiny runs, each with a fault at a random moment; all must end as an undisturbed run does, bit by bit.

    python tests/soak.py [NUMBER] [SEED]

Prints a line for each run, and at the end what became of them. Exits with 1 if a run differs, a file or process is left
over, a message is missing or the memory of the process that all are forked from has grown.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from shared import TINY, UNMEASURED, run_command, start_command

from vae_lightning import LoadError, load_run
from vae_lightning.runs import Run, state_of

TAKEN = [*TINY, *UNMEASURED, "trainer.max_epochs=12", "logger=none", "callbacks.checkpoints.every_n_batches=1"]
KINDS = [
    [],
    ["model/objective=iwae", "model.objective.samples=3"],
    ["model/prior=vamp", "model.prior.components=4", "model/objective=annealed", "model.objective.steps=20"],
    ["data.binarize=dynamic", "schedule=cosine", "engine.steps_per_call=3"],
]
OF_TIME = {"seconds_training", "images_per_second"}
ATTEMPTS = 6
MARK = "VAE_SOAK"


def training(folder: Path, kind: list[str], resume: bool) -> list[str]:
    return [*TAKEN, *kind, f"hydra.run.dir={folder.name}", *(["resume=true"] if resume else [])]


def result(folder: Path) -> dict[str, Any]:
    """All that must be the same: metrics but times, and weights."""
    run = Run(folder)
    metrics = {name: value for name, value in run.metrics.items() if name not in OF_TIME}
    state = torch.load(run.checkpoint_file, weights_only=True)["state_dict"]
    return metrics | {name: (value.dtype, value.tolist()) for name, value in state.items()}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


class Soak:
    """Runs with faults.

    Args:
        place: an empty folder.
        seed: of the faults.
    """

    def __init__(self, place: Path, seed: int) -> None:
        self.place = place
        self.random = random.Random(seed)
        self.expected: list[tuple[dict[str, Any], set[str]]] = []
        self.seconds = 0.0
        for number, kind in enumerate(KINDS):
            started = time.perf_counter()
            folder = place / f"whole-{number}"
            done = run_command("vae_lightning.cli", *training(folder, kind, False), cwd=place)
            assert done.returncode == 0, done.stderr
            self.seconds = max(self.seconds, time.perf_counter() - started)
            self.expected.append((result(folder), files(folder)))

    def one(self, number: int) -> str:
        """Makes a run with a fault, takes it up until it has finished, and returns the fault's name.

        Raises:
            AssertionError: if anything is not as it must be.
        """
        kind = number % len(KINDS)
        fault = self.random.choice(FAULTS)
        folder = self.place / f"run-{number}"
        fault(self, folder, KINDS[kind])
        for _ in range(ATTEMPTS):
            if Run(folder).finished and self.whole(Run(folder)):
                break
            done = run_command("vae_lightning.cli", *training(folder, KINDS[kind], folder.exists()), cwd=self.place)
            assert "Traceback" not in done.stdout + done.stderr, done.stderr
            if done.returncode:  # a damaged file is named; without it, the run begins anew
                named = [path for path in self.damaged(folder) if path.name in done.stderr]
                assert named, done.stderr
                for path in named:
                    path.unlink()
        run = Run(folder)
        assert state_of(run) == "finished", run.failure
        expected, left = self.expected[kind]
        found = result(folder)
        assert found == expected, [name for name in expected | found if found.get(name) != expected.get(name)]
        assert files(folder) == left, files(folder) ^ left
        return fault.__name__

    def whole(self, run: Run) -> bool:
        """Whether a finished run can be loaded; if it says that it cannot, it begins anew."""
        try:
            load_run(run.folder)
        except LoadError:
            shutil.rmtree(run.folder)
            return False
        return True

    def started(self, folder: Path, kind: list[str]) -> Any:
        """A training, and a random time during it, which it has reached."""
        said = Path(tempfile.mkdtemp(dir=self.place))
        process = start_command("vae_lightning.cli", *training(folder, kind, False), cwd=self.place, said=said)
        time.sleep(self.random.uniform(0.1, 1.0) * self.seconds)
        return process

    def damaged(self, folder: Path) -> list[Path]:
        run = Run(folder)
        return [path for path in (run.checkpoint_file, run.metrics_file, run.config_file) if path.is_file()]


def nothing(soak: Soak, folder: Path, kind: list[str]) -> None:
    pass


def killed(soak: Soak, folder: Path, kind: list[str]) -> None:
    process = soak.started(folder, kind)
    stop(process, signal.SIGKILL)
    assert process.wait(60) in (0, -signal.SIGKILL)


def terminated(soak: Soak, folder: Path, kind: list[str]) -> None:
    process = soak.started(folder, kind)
    stop(process, signal.SIGTERM)
    assert process.wait(60) in (0, 128 + signal.SIGTERM, -signal.SIGTERM)


def twice(soak: Soak, folder: Path, kind: list[str]) -> None:
    """Two processes take up the same run: one gets it, or both in turn; the other says so."""
    process = soak.started(folder, kind)
    other = run_command("vae_lightning.cli", *training(folder, kind, True), cwd=soak.place)
    assert process.wait(60) in (0, 2)
    assert other.returncode == 0 or "another process is training this run" in other.stderr, other.stderr
    assert not Run(folder).error_file.exists()


def truncated(soak: Soak, folder: Path, kind: list[str]) -> None:
    """Killed, and then one of its files is cut off, as by a file system that had not written it."""
    killed(soak, folder, kind)
    if found := soak.damaged(folder):
        path = soak.random.choice(found)
        with path.open("r+b") as file:
            file.truncate(soak.random.randrange(path.stat().st_size))


def full(soak: Soak, folder: Path, kind: list[str]) -> None:
    """A limit on the size of files, which a checkpoint exceeds; a disk of its own is mounted in test_failures.py."""
    size = soak.random.choice([2_000, 20_000, 60_000])
    program = (
        f"import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size})); "
        "from vae_lightning.cli import main; sys.argv[0] = 'vae-train'; main()"
    )
    command = [sys.executable, "-c", program, *training(folder, kind, False)]
    done = subprocess.run(command, cwd=soak.place, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, 1), done.stderr
    assert done.returncode == 0 or "File too large" in done.stdout + done.stderr, done.stderr
    assert "Traceback (" not in done.stderr, done.stderr


def clock(soak: Soak, folder: Path, kind: list[str]) -> None:
    """The clock goes back or ahead by a year during a training that is then killed; its files are of tomorrow."""
    starting = 5.0  # seconds, of a new interpreter
    moment, end = sorted(soak.random.uniform(0, starting + soak.seconds) for _ in range(2))
    year = soak.random.choice([-1, 1]) * 365 * 86400
    program = (
        f"import sys, time; real = time.time; moment = real() + {moment}; "
        f"time.time = lambda: real() + ({year} if real() > moment else 0); "
        "time.time_ns = lambda: int(1e9 * time.time()); "
        "from vae_lightning.cli import main; sys.argv[0] = 'vae-train'; main()"
    )
    with suppress(subprocess.TimeoutExpired):
        command = [sys.executable, "-c", program, *training(folder, kind, False)]
        done = subprocess.run(command, cwd=soak.place, capture_output=True, text=True, timeout=end)
        assert done.returncode == 0, done.stderr
    tomorrow = time.time() + 86400
    for path in folder.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))


FAULTS: list[Callable[[Soak, Path, list[str]], None]] = [
    *(nothing, killed, killed, killed, terminated, twice, truncated, truncated, full, clock)
]


def stop(process: Any, number: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        process.send_signal(number)


def memory(pid: int) -> float:
    """Resident memory of a process in MB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def children() -> set[int]:
    """The processes that this one has started, directly or not."""
    mark, found = f"{MARK}={os.getpid()}".encode(), set()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found - {os.getpid()}


def main() -> None:
    number, seed = (int(word) for word in (*sys.argv[1:], *["200", "0"][len(sys.argv) - 1 :]))
    os.environ[MARK] = str(os.getpid())
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        soak = Soak(Path(place), seed)
        running = children()
        used = sum(map(memory, running))
        failed = 0
        for run in range(number):
            try:
                fault = soak.one(run)
                outcomes[fault] += 1
                print(f"run {run}: {fault}", flush=True)
            except Exception as error:
                failed += 1
                print(f"run {run}: {type(error).__name__} {str(error)[:2000]}", flush=True)
        left = children() - running
    grown = sum(memory(pid) for pid in running if Path(f"/proc/{pid}").exists()) - used
    print(f"{number - failed} of {number} as an undisturbed run: {dict(outcomes)}")
    print(f"{len(left)} processes left; memory grown by {grown:.0f} MB")
    sys.exit(1 if failed or left or grown > 50 else 0)


if __name__ == "__main__":
    main()
