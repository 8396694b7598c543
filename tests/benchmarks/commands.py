"""Where the time of a whole command goes, from Enter to the last picture: `make bench ARGS=--commands`.

    python tests/benchmarks/commands.py [OPTION …]

Runs `vae-train` with these options in a process of its own, and times its phases; each counts without those within it.
Without options: `data=glyphs` and `data=kmnist10k`, d = 128, 3 epochs, `trainer=default` and `fast`. Writes
`outputs/commands.json` and a picture, `outputs/commands.png`.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

USUAL = [
    [f"data={data}", "model.latent_dim=128", "trainer.max_epochs=3", f"trainer={trainer}"]
    for data in ("glyphs", "kmnist10k")
    for trainer in ("default", "fast")
]
SHOWN = 0.05  # seconds; shorter phases are drawn together


class Phases:
    """Seconds of nested phases, each without those within it."""

    def __init__(self, started: float) -> None:
        self.seconds: dict[str, float] = {}
        self._stack = ["start"]
        self._since = started

    def _pass(self) -> None:
        now = time.time()
        phase = self._stack[-1]
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self._since
        self._since = now

    def time(self, owner: Any, name: str, phase: str) -> None:
        """Counts all calls of a function as a phase."""
        called = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            self._pass()
            self._stack.append(phase)
            try:
                return called(*arguments, **options)
            finally:
                self._pass()
                self._stack.pop()
                if self._stack == ["start"]:
                    self._stack = ["the rest"]

        setattr(owner, name, timed)

    def end(self) -> dict[str, float]:
        self._pass()
        return self.seconds


def worker(started: float, file: Path, options: Sequence[str]) -> None:
    """Runs the command in this process, and writes the seconds of its phases."""
    sys.argv = ["vae-train", *options]
    from pytorch_lightning import Trainer

    from vae_lightning import cli
    from vae_lightning.callbacks import FinalFigures, LatentExplorer, Measurements, SampleGrids, TensorBoardViews
    from vae_lightning.data.datamodule import ImageDataModule
    from vae_lightning.measuring import MEASUREMENTS

    phases = Phases(started)
    phases.time(Trainer, "fit", "training")
    phases.time(Trainer, "test", "test")
    for hook in ("prepare_data", "setup"):
        phases.time(ImageDataModule, hook, "data")
    phases.time(Measurements, "on_test_epoch_end", "test")
    for measurement in MEASUREMENTS:
        phases.time(measurement, "measure", measurement.__name__.rpartition(".")[2])
    drawn = {FinalFigures: "on_test_end", SampleGrids: "on_fit_end", TensorBoardViews: "on_test_end"}
    for callback, hook in drawn.items():
        phases.time(callback, hook, "figures")
    phases.time(LatentExplorer, "on_test_end", "explorer")
    with suppress(SystemExit):
        cli.main()
    file.write_text(json.dumps(phases.end()))


def measure(options: Sequence[str]) -> dict[str, float]:
    """Returns the seconds of the phases of a command, and `total`, of the process from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "phases.json")
        started = time.time()
        command = [
            sys.executable,
            __file__,
            "--worker",
            repr(started),
            str(file),
            *options,
            f"hydra.run.dir={folder}/run",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        if not file.exists() or not Path(folder, "run", "metrics.json").exists():
            sys.exit(f"{' '.join(options)} failed:\n{done.stderr[-3000:]}")
        return {**json.loads(file.read_text()), "total": time.time() - started}


def draw(found: dict[str, dict[str, float]], file: Path) -> None:
    """Stacked bars, a row for each command."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.6 + 0.55 * len(found)), layout="constrained")
    axes = figure.subplots()
    phases = list(dict.fromkeys(phase for seconds in found.values() for phase in seconds if phase != "total"))
    phases = [phase for phase in phases if max(seconds.get(phase, 0) for seconds in found.values()) > SHOWN]
    colours = colormaps["tab20"]
    left = [0.0] * len(found)
    for number, phase in enumerate(phases):
        widths = [seconds.get(phase, 0.0) for seconds in found.values()]
        axes.barh(list(found), widths, left=left, label=phase, color=colours(number % 20), height=0.7)
        left = [before + width for before, width in zip(left, widths, strict=True)]
    for row, seconds in enumerate(found.values()):
        axes.text(left[row], row, f" {seconds['total']:.1f} s", va="center")
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    axes.margins(x=0.1)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=8, frameon=False, fontsize=8)
    figure.savefig(file, dpi=120)


def main() -> None:
    asked = sys.argv[1:]
    found: dict[str, dict[str, float]] = {}
    for options in [asked] if asked else USUAL:
        name = " ".join(option.partition("=")[2] if "trainer=" in option else option for option in options)
        print(f"  vae-train {' '.join(options)} …", file=sys.stderr)
        found[name] = measure(options)
        longest = sorted(found[name].items(), key=lambda item: -item[1])
        print(f"{name}: " + ", ".join(f"{phase} {seconds:.1f} s" for phase, seconds in longest if seconds > SHOWN))
    folder = Path("outputs")
    folder.mkdir(exist_ok=True)
    (folder / "commands.json").write_text(json.dumps({"cores": os.cpu_count(), "seconds": found}, indent=2) + "\n")
    draw(found, folder / "commands.png")
    print(f"figures in {folder / 'commands.json'}, picture in {folder / 'commands.png'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(float(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
    else:
        main()
