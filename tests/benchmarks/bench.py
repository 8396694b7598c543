"""`make bench`: what a training step costs here, beside the hand-written loop and beside what it could cost.

Every loop runs in a process of its own, in turn, several times over, so that a machine that slows down for a while
slows down all of them; ratios are between medians of all steps after the warm-up.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median, quantiles

DESCRIPTIONS = {
    "a": "plain loop: torchvision data set, DataLoader, eager float32",
    "b": "vae-train",
    "c": "vae-train trainer=fast",
    "d": "bare loop with all that c uses, without Lightning",
    "e": "the network's arithmetic at this machine's matrix rate",
}
BATCH = 128


def worker(loop: str, folder: Path, latent_dim: int, steps: int, started: float, images: int, batch: int) -> None:
    """Runs one loop and prints what it measured as JSON."""
    import torch
    from loops import LOOPS, arithmetic_limit, profile, scaled

    if loop == "e":
        print(json.dumps(arithmetic_limit(latent_dim)))
        return
    if loop == "profile":
        print(json.dumps(profile(folder, latent_dim, steps)))
        return
    if loop in ("resident", "loaded"):
        timing = scaled(folder, images, batch, loop == "resident", steps)
    else:
        timing = LOOPS[loop](folder, latent_dim, steps)
    cuda = torch.cuda.is_available()
    measured = {
        "steps": timing.steps,
        "seconds_to_first_step": timing.first - started,
        "host_mib": _peak_host_mib(),
        "device_mib": torch.cuda.max_memory_allocated() / 2**20 if cuda else 0.0,
    }
    print(json.dumps(measured))


def _peak_host_mib() -> float:
    """This process's own peak; `getrusage` would count the parent's as well."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    (peak,) = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    return int(peak.split()[1]) / 1024


def run_worker(loop: str, folder: Path, latent_dim: int, steps: int, images: int = 0, batch: int = BATCH) -> dict:
    command = [sys.executable, __file__, "--worker", loop, "--folder", folder, "--latent-dim", latent_dim]
    command += ["--steps", steps, "--images", images, "--batch", batch, "--started", repr(time.time())]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"loop {loop} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(folder: Path, latent_dim: int, steps: int, rounds: int) -> dict:
    """All loops for one latent dimension; the arithmetic limit once."""
    runs: dict[str, list[dict]] = {loop: [] for loop in "abcd"}
    for number in range(rounds):
        for loop, found in runs.items():
            print(f"  latent dimension {latent_dim}, round {number + 1}/{rounds}, loop {loop} …", file=sys.stderr)
            found.append(run_worker(loop, folder, latent_dim, steps))
    result = {}
    for loop, found in runs.items():
        settled = [seconds for run in found for seconds in run["steps"][1:]]
        low, _, high = quantiles(settled, n=4)
        result[loop] = {
            "step_ms": 1e3 * median(settled),
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "images_per_second": BATCH / median(settled),
            "seconds_to_first_step": median(run["seconds_to_first_step"] for run in found),
            "host_mib": median(run["host_mib"] for run in found),
            "device_mib": median(run["device_mib"] for run in found),
        }
    result["profile"] = run_worker("profile", folder, latent_dim, 20)
    limit = run_worker("e", folder, latent_dim, steps)
    result["e"] = {**limit, "step_ms": 1e3 * limit["step_seconds"]}
    steps_ms = {loop: result[loop]["step_ms"] for loop in "abcde"}
    result["ratios"] = {f"{x}/{y}": steps_ms[x] / steps_ms[y] for x, y in ("ab", "ac", "cd", "de")}
    return result


def show(latent_dim: int, result: dict) -> None:
    print(f"\nlatent dimension {latent_dim}, batches of {BATCH}\n")
    print("     ms/step     quartiles   images/s   s to 1st step   host MiB   device MiB")
    for loop in "abcd":
        r = result[loop]
        low, high = r["quartiles_ms"]
        memory = f"{r['host_mib']:10,.0f} {r['device_mib']:12,.0f}"
        print(
            f"  {loop} {r['step_ms']:8.2f} {low:7.2f}–{high:6.2f} {r['images_per_second']:10,.0f}"
            f" {r['seconds_to_first_step']:15.1f} {memory}   {DESCRIPTIONS[loop]}"
        )
    limit = result["e"]
    print(f"  e {limit['step_ms']:8.2f}{'':63}{DESCRIPTIONS['e']}")
    print(f"    {limit['flops_per_step'] / 1e9:.2f} GFLOP/step, {limit['matrix_flops_per_second'] / 1e12:.2f} TFLOP/s")
    print("  " + "   ".join(f"{name} = {ratio:.2f}" for name, ratio in result["ratios"].items()))
    print("  where d's time goes:")
    for row in result["profile"]:
        print(f"  {row['share']:6.1%} {row['calls']:6.1f} calls/step  {row['operation'][:90]}")


def scale(folder: Path, steps: int) -> list[dict]:
    """c with more images, in larger batches, and with images that are loaded batch by batch."""
    rows = []
    sizes = [(60_000, 128), (60_000, 512), (60_000, 2048), (600_000, 128), (6_000_000, 128), (6_000_000, 2048)]
    for images, batch in sizes:
        for loop in ("resident", "loaded") if batch == BATCH and images > 600_000 else ("resident",):
            print(f"  {images:,} images, batches of {batch}, {loop} …", file=sys.stderr)
            # As many images in each measurement, but at least three times as many steps as are timed together.
            found = run_worker(loop, folder, 2, max(30, steps * BATCH // batch // 10 * 10), images, batch)
            rate = batch / median(found["steps"][1:])
            memory = {name: found[name] for name in ("host_mib", "device_mib")}
            expected = images * (28 * 28 + 8) / 2**20
            rows.append(
                {"images": images, "batch": batch, "loop": loop, "images_per_second": rate, "images_mib": expected}
                | memory
            )
    return rows


def show_scale(rows: list[dict]) -> None:
    print("\ntrainer=fast on more images: resident, or loaded batch by batch\n")
    print("     images   batch              images/s   MiB of images   host MiB   device MiB")
    for r in rows:
        print(
            f"  {r['images']:9,} {r['batch']:7} {r['loop']:>10} {r['images_per_second']:11,.0f}"
            f" {r['images_mib']:15,.0f} {r['host_mib']:10,.0f} {r['device_mib']:12,.0f}"
        )


def whole_trainings(folder: Path, images: int) -> dict[str, float]:
    """Seconds of whole commands, start included: 3 epochs by a, which does no more, and by c with all that it draws."""
    epochs, latent_dim = 3, 2
    seconds = {}
    for loop in "ac":
        print(f"  {epochs} epochs of {images:,} images, {loop} …", file=sys.stderr)
        start = time.perf_counter()
        if loop == "a":
            run_worker("a", folder, latent_dim, epochs * -(-images // BATCH) // 10 * 10)
        else:
            (folder / "data").mkdir(exist_ok=True)
            source = f"{{_target_: loops.Files, folder: {folder}}}"
            (folder / "data" / "bench.yaml").write_text(f"defaults: [_base]\nname: bench\nsource: {source}\n")
            command = [sys.executable, "-m", "vae_lightning.cli", "--config-dir", str(folder), "data=bench"]
            command += ["trainer=fast", f"trainer.max_epochs={epochs}", f"model.latent_dim={latent_dim}"]
            command += [f"hydra.run.dir={folder}/whole"]
            paths = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths})
            if done.returncode:
                sys.exit(f"vae-train failed:\n{done.stderr}")
        seconds[loop] = time.perf_counter() - start
    metrics = json.loads((folder / "whole" / "metrics.json").read_text())
    return seconds | {"c, training alone": metrics["seconds_training"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer steps and images, for a first look")
    parser.add_argument("--commands", action="store_true", help="time whole commands by phase instead of steps")
    parser.add_argument("--json", type=Path, default=Path("outputs/bench.json"), help="where the figures go")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--latent-dim", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--started", type=float, help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        settings = (options.latent_dim, options.steps, options.started, options.images, options.batch)
        worker(options.worker, options.folder, *settings)
        return
    if options.commands:
        import commands

        sys.argv[1:] = []
        commands.main()
        return
    import torch

    images, steps, rounds, dimensions = (6_000, 40, 1, [2]) if options.quick else (60_000, 100, 3, [2, 128])
    if torch.cuda.is_available():
        steps *= 10
    with tempfile.TemporaryDirectory(prefix="vae-bench-") as name:
        from loops import prepare

        print(f"drawing {images:,} images …", file=sys.stderr)
        prepare(Path(name), images)
        results = {}
        for latent_dim in dimensions:
            results[latent_dim] = measure(Path(name), latent_dim, steps, rounds)
            show(latent_dim, results[latent_dim])
        scales, whole = [], {}
        if not options.quick:
            scales = scale(Path(name), steps // 2)
            show_scale(scales)
            whole = whole_trainings(Path(name), images)
            print(f"\n3 epochs of {images:,} images, whole commands: a {whole['a']:.1f} s, c {whole['c']:.1f} s")
            print(f"(start, test and figures included; c's training alone {whole['c, training alone']:.1f} s)")

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
