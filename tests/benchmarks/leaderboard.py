"""Our objectives beside pythae's: the same network, images, steps and optimizer, and the same measurements of both.

    python tests/benchmarks/leaderboard.py ENV/bin/python [--data kmnist10k] [--epochs 3] [--seeds 0,1,2]

trains both, ENV with pythae (see `against_pythae.py` for what it needs), measures both by the same code, and prints
means over seeds. The bound has 100 samples of each test image. Everything is kept in `--folder`, and what is there is
not done again.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vae_lightning import compose, evaluate, load_run, train
from vae_lightning.report.metrics import describe
from vae_lightning.report.table import spread
from vae_lightning.runs import Run

OBJECTIVES = ("vae", "beta_vae", "beta_tc_vae", "iwae", "factor_vae")
METRICS = ("test/elbo", "test/iw_bound", "test/rate", "test/active_units", "test/knn_accuracy", "test/frechet_samples")
MEASURED = ["bound_samples=100", "bound_images=10000", "tsne=false", "rate_images=0"]
THEIRS = Path(__file__).with_name("train_pythae.py")


def ours(folder: Path, objective: str, seed: int, options: Sequence[str]) -> Path:
    """Trains a run of ours, unless it is there."""
    run = folder / f"ours-{objective}-{seed}"
    if not Run(run).finished:
        sizes = [f"callbacks.measurements.{size}" for size in MEASURED]
        config = compose(f"recipe={objective}", "model.latent_dim=16", f"seed={seed}", *sizes, *options)
        train(config, run, progress=False)
    return run


def theirs(python: str, folder: Path, images: Path, own: Path, objective: str, seed: int, epochs: int) -> Path:
    """Trains with pythae, unless it was, and writes the weights into a copy of our run, to be measured like it."""
    run = folder / f"pythae-{objective}-{seed}"
    if run.is_dir():
        return run
    weights = folder / f"{run.name}.npz"
    if not weights.is_file():
        command = [python, THEIRS, images, objective, seed, epochs, weights]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    made = Path(f"{run}.partial")
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(own, made, ignore=shutil.ignore_patterns("evaluations"))
    checkpoint = torch.load(Run(made).weights_file, weights_only=True)
    names = [name for name in checkpoint["state_dict"] if name.startswith(("encoder.", "decoder."))]
    with np.load(weights) as arrays:
        found = [torch.from_numpy(arrays[key]) for key in sorted(set(arrays) - {"seconds"})]
    for name, value in zip(names, found, strict=True):
        if value.shape != checkpoint["state_dict"][name].shape:
            raise ValueError(f"{name}: {tuple(value.shape)} in pythae's network")
        checkpoint["state_dict"][name] = value
    torch.save(checkpoint, Run(made).weights_file)
    made.rename(run)
    return run


def measured(run: Path) -> dict[str, float]:
    """Measures a run as ours were at the end of their training, unless it was."""
    if not Run(run).evaluation_file("leaderboard").is_file():
        evaluate(run, name="leaderboard", progress=False)
    return dict(Run(run).evaluations["leaderboard"])


def training_images(own: Path, file: Path) -> Path:
    """Writes the images that a run of ours is trained on, as pythae gets them."""
    if not file.is_file():
        data = load_run(own).data
        data.setup("fit")
        found = data.splits["train"]
        np.savez(file, images=found.take(torch.arange(len(found))).images.numpy())
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("python", help="of an environment with pythae")
    parser.add_argument("--data", default="kmnist10k", help="a choice of the group data; default: kmnist10k")
    parser.add_argument("--epochs", type=int, default=3, help="default: 3")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--objectives", default=",".join(OBJECTIVES), help="default: all of them")
    parser.add_argument("--folder", type=Path, default=Path("outputs/leaderboard"))
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    options = [f"data={asked.data}", f"trainer.max_epochs={asked.epochs}", "trainer=cpu"]
    rows = []
    for objective in asked.objectives.split(","):
        for seed in map(int, asked.seeds.split(",")):
            own = ours(asked.folder, objective, seed, options)
            images = training_images(own, asked.folder / "images.npz")
            other = theirs(asked.python, asked.folder, images, own, objective, seed, asked.epochs)
            for library, metrics in (("ours", Run(own).metrics), ("pythae", measured(other))):
                rows.append({**metrics, "recipe": objective, "library": library, "seed": seed})
    table = pd.DataFrame(rows)
    table.to_csv(asked.folder / "leaderboard.csv", index=False)
    groups = table.groupby(["recipe", "library"], sort=False)
    means = {describe(name).label: [spread(found[name], describe(name)) for _, found in groups] for name in METRICS}
    print(pd.DataFrame(means, index=groups.size().index).reset_index().to_string(index=False))


if __name__ == "__main__":
    sys.exit(main())
