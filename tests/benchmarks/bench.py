"""`make bench`: what a training step costs here, beside a hand-written loop and beside what it could cost.

    python tests/benchmarks/bench.py [--quick] [--pythae ENV/bin/python] [--keras ENV/bin/python]
        [--commands]

All loops take turns of a few seconds, so that a machine that slows down for a while slows down all of them. Ratios are
medians over the rounds of the ratio in each, with a bootstrap interval of 95 %.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np
from turns import Loop

LOOPS = {
    "a": ("loops.plain", "plain loop: torchvision data set, DataLoader, eager float32"),
    "b": ("loops.project", "vae-train"),
    "c": ("loops.fast", "vae-train trainer=fast"),
    "d": ("loops.bare", "bare loop with all that c uses, without Lightning"),
    "e": ("loops.arithmetic", "the network's arithmetic at this machine's matrix rate"),
    "l": ("loops.plain_lightning", "the plain loop in Lightning, logged to TensorBoard"),
    "p": ("loop_of_pythae.loop", "pythae's trainer"),
    "k": ("loop_of_keras.loop", "Keras' fit on JAX"),
}
OTHERS = {"p": "pythae", "k": "keras"}  # in environments of their own
BATCH = 128


def measure(folder: str, latent_dim: int, steps: int, rounds: int, pythons: dict[str, str]) -> dict:
    """All loops for one latent dimension; those of other libraries by the interpreters that there are for them."""
    names = [name for name in LOOPS if name not in OTHERS or name in pythons]
    with ExitStack() as started:
        loops: dict[str, Loop] = {}
        for name in names:
            print(f"  latent dimension {latent_dim}, starting {name} …", file=sys.stderr)
            arguments = [latent_dim] if name == "e" else [folder, latent_dim]
            loops[name] = Loop(LOOPS[name][0], arguments, rounds + 1, steps, pythons.get(name, sys.executable))
            started.callback(loops[name].stop)
        for loop in loops.values():
            loop.turn()
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for number in range(rounds):
            print(f"  latent dimension {latent_dim}, round {number + 1}/{rounds} …", file=sys.stderr)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                seconds[name].append(loops[name].turn())
        ends = {name: loop.finish() for name, loop in loops.items()}
    result: dict = {}
    for name, loop in loops.items():
        result[name] = {
            "step_ms": 1e3 * median(seconds[name]),
            "rounds_ms": [1e3 * one for one in seconds[name]],
            "images_per_second": BATCH / median(seconds[name]),
            "seconds_to_first_step": loop.seconds_to_first_step,
            "host_mib": ends[name]["host_mib"],
            "device_mib": ends[name]["device_mib"],
        }
    result["e"]["flops_per_step"] = ends["e"]["result"]
    pairs = [(x, y) for x, y in ("ab", "pb", "kb", "lb", "ac", "pc", "kc", "lc", "cd", "de") if {x, y} <= set(names)]
    result["ratios"] = {f"{x}/{y}": _ratio(seconds[x], seconds[y]) for x, y in pairs}
    profile = Loop("loops.profile", [folder, latent_dim], 1, 20)
    result["profile"] = profile.finish()["result"]
    return result


def _ratio(ones: list[float], others: list[float]) -> list[float]:
    """The median of the rounds' ratios, and the ends of its 95 % bootstrap interval."""
    ratios = np.array(ones) / np.array(others)
    drawn = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    return [float(np.median(ratios)), *map(float, np.quantile(np.median(drawn, axis=1), [0.025, 0.975]))]


def show(latent_dim: int, result: dict) -> None:
    print(f"\nlatent dimension {latent_dim}, batches of {BATCH}\n")
    print("     ms/step   of all rounds   images/s   s to 1st step   host MiB   device MiB")
    for name in filter(result.__contains__, LOOPS):
        r = result[name]
        all_rounds = f"{min(r['rounds_ms']):7.2f}–{max(r['rounds_ms']):6.2f}"
        rest = f"{r['seconds_to_first_step']:15.1f} {r['host_mib']:10,.0f} {r['device_mib']:12,.0f}"
        rest = " " * len(rest) if name == "e" else rest
        print(f"  {name} {r['step_ms']:8.2f} {all_rounds} {r['images_per_second']:10,.0f} {rest}   {LOOPS[name][1]}")
    e = result["e"]
    print(f"    {e['flops_per_step'] / 1e9:.2f} GFLOP/step, {e['flops_per_step'] / e['step_ms'] / 1e9:.2f} TFLOP/s")
    for name, (ratio, low, high) in result["ratios"].items():
        print(f"  {name} = {ratio:.2f} ({low:.2f} to {high:.2f})")
    print("  where d's time goes:")
    for row in result["profile"]:
        print(f"  {row['share']:6.1%} {row['calls']:6.1f} calls/step  {row['operation'][:90]}")


def scale(folder: str, steps: int) -> list[dict]:
    """c with more images, in larger batches, and with images that are loaded batch by batch."""
    rows = []
    sizes = [(60_000, 128), (60_000, 512), (60_000, 2048), (600_000, 128), (6_000_000, 128), (6_000_000, 2048)]
    for images, batch in sizes:
        for loop in ("resident", "loaded") if batch == BATCH and images > 600_000 else ("resident",):
            print(f"  {images:,} images, batches of {batch}, {loop} …", file=sys.stderr)
            turns = Loop(
                "loops.scaled", [folder, images, batch, loop == "resident"], 4, max(10, steps * BATCH // batch)
            )
            seconds = [turns.turn() for _ in range(4)][1:]
            end = turns.finish()
            memory = {name: end[name] for name in ("host_mib", "device_mib")}
            expected = images * (28 * 28 + 8) / 2**20
            rows.append(
                {"images": images, "batch": batch, "loop": loop, "images_per_second": batch / median(seconds)}
                | {"images_mib": expected} | memory
            )  # fmt: skip
    return rows


def show_scale(rows: list[dict]) -> None:
    print("\ntrainer=fast on more images: resident, or loaded batch by batch\n")
    print("     images   batch              images/s   MiB of images   host MiB   device MiB")
    for r in rows:
        print(
            f"  {r['images']:9,} {r['batch']:7} {r['loop']:>10} {r['images_per_second']:11,.0f}"
            f" {r['images_mib']:15,.0f} {r['host_mib']:10,.0f} {r['device_mib']:12,.0f}"
        )


def whole_trainings(folder: Path, rounds: int) -> list[dict[str, float]]:
    """Two epochs of 9,000 images by a, which does no more, and by c with all callbacks: training, and from Enter on."""
    from loops import prepare

    images, epochs = 9_000, 2
    prepare(folder / "small", images)
    (folder / "data").mkdir()
    source = f"{{_target_: loops.Files, folder: {folder / 'small'}}}"
    (folder / "data" / "bench.yaml").write_text(f"defaults: [_base]\nname: bench\nsource: {source}\n")
    paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    found = []
    for number in range(rounds):
        print(f"  {epochs} epochs of {images:,} images, round {number + 1}/{rounds} …", file=sys.stderr)
        started = time.time()
        plain = Loop("loops.plain", [str(folder / "small"), 2], 1, epochs * -(-images // BATCH))
        seconds = {"a, training": plain.turn() * epochs * -(-images // BATCH)}
        plain.finish()
        seconds["a, whole"] = time.time() - started
        run = folder / f"whole-{number}"
        command = [sys.executable, "-m", "vae_lightning.cli", "--config-dir", str(folder), "data=bench"]
        command += ["trainer=fast", f"trainer.max_epochs={epochs}", "model.latent_dim=2", f"hydra.run.dir={run}"]
        started = time.time()
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
        if done.returncode:
            sys.exit(f"vae-train failed:\n{done.stderr}")
        seconds["c, whole"] = time.time() - started
        seconds["c, training"] = json.loads((run / "metrics.json").read_text())["seconds_training"]
        found.append(seconds)
    return found


def show_whole(found: list[dict[str, float]]) -> None:
    print("\nwhole trainings, 2 epochs of 9,000 images, medians of", len(found), "rounds\n")
    for name in found[0]:
        print(f"  {name:12} {median(seconds[name] for seconds in found):6.1f} s")
    ratio, low, high = _ratio(
        [seconds["a, training"] for seconds in found], [seconds["c, training"] for seconds in found]
    )
    print(f"  a/c of the training = {ratio:.2f} ({low:.2f} to {high:.2f}); whole commands of c measure and draw, too")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and images, for a first look")
    parser.add_argument("--commands", action="store_true", help="time whole commands by phase instead of steps")
    parser.add_argument("--json", type=Path, default=Path("outputs/bench.json"), help="where the figures go")
    for name, library in OTHERS.items():
        parser.add_argument(f"--{library}", metavar="PYTHON", help=f"also time {LOOPS[name][1]}, by this interpreter")
    options = parser.parse_args()
    if options.commands:
        import commands

        sys.argv[1:] = []
        commands.main()
        return
    import torch

    pythons = {name: python for name, library in OTHERS.items() if (python := getattr(options, library))}
    images, steps, rounds, dimensions = (6_000, 50, 2, [2]) if options.quick else (60_000, 100, 9, [2, 128])
    if torch.cuda.is_available():
        steps *= 10
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as folder:
        from loops import prepare

        print(f"drawing {images:,} images …", file=sys.stderr)
        prepare(Path(folder), images)
        results = {}
        for latent_dim in dimensions:
            results[latent_dim] = measure(folder, latent_dim, steps, rounds, pythons)
            show(latent_dim, results[latent_dim])
        scales, whole = [], []
        if not options.quick:
            whole = whole_trainings(Path(folder), 5)
            show_whole(whole)
            scales = scale(folder, steps // 2)
            show_scale(scales)

    hardware = (
        torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} {platform.machine()} cores"
    )
    summary = {
        "date": date.today().isoformat(), "hardware": hardware, "torch": torch.__version__, "rounds": rounds,
        "steps": steps, "images": images, "latent_dim": results, "scale": scales, "whole_seconds": whole,
    }  # fmt: skip
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(summary, indent=2) + "\n")
    print(f"\n{hardware}, PyTorch {torch.__version__}, {rounds} × {steps} steps each; figures in {options.json}")


if __name__ == "__main__":
    main()
