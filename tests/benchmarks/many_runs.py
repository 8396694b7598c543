"""How long the report of a large sweep takes, and how much memory: on copies of one finished run, with other numbers.

    python tests/benchmarks/many_runs.py RUN [COUNT …]

RUN is the folder of a finished run; it gives the size of figures, events and explorers. For each COUNT (100 and 1000 by
default) a sweep over ten latent dimensions and as many seeds as that takes is made in a temporary folder.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

DIMENSIONS = (2, 3, 4, 6, 8, 16, 32, 64, 128, 256)


def make_sweep(run: Path, folder: Path, count: int) -> None:
    """Copies of a run as a sweep; metrics vary around the run's own."""
    seeds = list(range(-(-count // len(DIMENSIONS))))
    hydra = yaml.safe_load((run / ".hydra" / "hydra.yaml").read_text())
    task = [f"model.latent_dim={','.join(map(str, DIMENSIONS))}", f"seed={','.join(map(str, seeds))}"]
    hydra["hydra"]["overrides"]["task"] = task
    hydra["hydra"]["sweeper"]["params"] = None
    folder.mkdir()
    (folder / "multirun.yaml").write_text(yaml.safe_dump(hydra))
    config = yaml.safe_load((run / "config.yaml").read_text())
    metrics = json.loads((run / "metrics.json").read_text())
    draw = random.Random(0)
    jobs = [(dimension, seed) for dimension in DIMENSIONS for seed in seeds][:count]
    for number, (dimension, seed) in enumerate(jobs):
        copy = folder / f"latent_dim-{dimension}_seed-{seed}"
        shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
        config["model"]["latent_dim"], config["seed"] = dimension, seed
        (copy / "config.yaml").write_text(yaml.safe_dump(config))
        hydra["hydra"]["job"]["num"] = number
        (copy / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump(hydra))
        varied = {name: value * (1 + 0.02 * draw.gauss(0, 1)) for name, value in metrics.items()}
        varied |= {"latent_dim": dimension, "seed": seed, "epochs": metrics["epochs"]}
        (copy / "metrics.json").write_text(json.dumps(varied))


def main() -> None:
    """Prints a line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("counts", type=int, nargs="*", default=[100, 1000])
    options = parser.parse_args()
    for count in options.counts:
        with tempfile.TemporaryDirectory() as temporary:
            sweep = Path(temporary) / "sweep"
            make_sweep(options.run, sweep, count)
            started = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "vae_lightning.report", str(sweep)], stdout=subprocess.DEVNULL
            )
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - started
            page = (sweep / "report" / "index.html").stat().st_size
            print(
                f"{count} runs: {seconds:.1f} s, {usage.ru_maxrss / 1024:.0f} MiB, page {page / 1e6:.1f} MB, "
                f"exit code {os.waitstatus_to_exitcode(status)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
