"""Mistakes put into objectives, evaluation and resume, one at a time; for each, the tests that must notice it.

    python tests/mutants.py [WORD …]

Prints for each mutant the test that killed it, or that it lives. Exits with 1 if one lives. WORDs choose those whose
file or text contains one of them.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
OBJECTIVES, EVALUATION, RESUME = "test_objectives.py", "test_evaluation.py", "test_resume.py"
INTERRUPTED = "from_anywhere or with_anything"

# File, what stands there, what is put there instead, the test file, and which of its tests.
MUTANTS = [
    ("objectives.py", "return distortion + rate\n", "return distortion - rate\n", OBJECTIVES, ""),
    ("objectives.py", "distortion + self.beta * rate", "distortion + rate", OBJECTIVES, ""),
    ("objectives.py", "self.taken * self.cycles / self.steps", "self.taken / self.steps", OBJECTIVES, ""),
    ("objectives.py", "self.taken += 1", "self.taken += 2", OBJECTIVES, ""),
    ("objectives.py", "position / self.ramp", "position * self.ramp", OBJECTIVES, ""),
    ("objectives.py", "self.taken < self.steps, rising", "self.taken > self.steps, rising", OBJECTIVES, ""),
    ("objectives.py", "clamp(min=self.nats)", "clamp(max=self.nats)", OBJECTIVES, ""),
    ("objectives.py", "rates.mean(0).clamp", "rates.sum(0).clamp", OBJECTIVES, ""),
    ("objectives.py", "math.log(self.samples) - (", "-(", OBJECTIVES, ""),
    ("objectives.py", "(-distortion - rate).logsumexp(0)", "(-distortion - rate).mean(0)", OBJECTIVES, ""),
    ("objectives.py", "(1 - self.alpha) * rate", "self.alpha * rate", OBJECTIVES, ""),
    ("objectives.py", "self.alpha + self.weight - 1", "self.alpha + self.weight", OBJECTIVES, ""),
    ("objectives.py", "/ (2 * dimension)", "/ dimension", OBJECTIVES, ""),
    ("objectives.py", "kernel(a, a).sum() - count", "kernel(a, a).sum()", OBJECTIVES, ""),
    ("objectives.py", "2 * kernel(one, other)", "kernel(one, other)", OBJECTIVES, ""),
    ("objectives.py", "(self.beta - 1) * (joint", "self.beta * (joint", OBJECTIVES, ""),
    ("objectives.py", "densities.logsumexp(1) - math.log(len(x))", "densities.logsumexp(1)", OBJECTIVES, ""),
    ("objectives.py", "noise * posterior.stddev.log()", "noise * posterior.stddev", OBJECTIVES, ""),
    ("objectives.py", "return posterior.log_prob(z) - prior.log_prob(z)", "return prior.log_prob(z)", OBJECTIVES, ""),
    ("architectures/posterior.py", "(0.5 * log_variance).exp()", "log_variance.exp()", "test_architectures.py", ""),
    ("evaluation/bounds.py", "+ prior.log_prob(z) - posterior", "- prior.log_prob(z) - posterior", OBJECTIVES, ""),
    ("evaluation/bounds.py", "total - math.log(samples)", "total", OBJECTIVES, ""),
    ("evaluation/bounds.py", "yield min(largest, total - start)", "yield largest", OBJECTIVES, ""),
    ("evaluation/bounds.py", "flatten(1).mean(1)", "flatten(1).sum(1)", EVALUATION, ""),
    ("evaluation/codes.py", "torch.stack(rates).sum(0) / total", "torch.stack(rates).mean(0)", EVALUATION, ""),
    ("evaluation/codes.py", "- torch.outer(self.mean, self.mean)", "", EVALUATION, ""),
    ("evaluation/codes.py", "torch.diag(torch.as_tensor(self._variances / self.count))", "0", EVALUATION, ""),
    ("evaluation/codes.py", "covariance_of_means.diagonal() > threshold", "covariance_of_means.diagonal() < threshold",
     EVALUATION, ""),
    ("evaluation/codes.py", "steps.amax(1) / steps.sum(1)", "steps.amin(1) / steps.sum(1)", EVALUATION, ""),
    ("evaluation/codes.py", "directions[:, [-1, -2]]", "directions[:, [0, 1]]", EVALUATION, ""),
    ("evaluation/codes.py", "torch.arange(cells) + 0.5", "torch.arange(cells) + 0.4", EVALUATION, ""),
    ("evaluation/codes.py", "steps.flip(0), steps", "steps, steps", EVALUATION, ""),
    ("evaluation/codes.py", "+ weights.unsqueeze(-1)).logsumexp(-2)", ").logsumexp(-2)", EVALUATION, ""),
    ("evaluation/codes.py", "codes[row, :, dimension] = values", "codes[row, :, row] = values", EVALUATION, ""),
    ("evaluation/probes.py", "trustworthiness(shown, truth,", "trustworthiness(truth, shown,", EVALUATION, ""),
    ("evaluation/quality.py", "metric.update(other.double().cpu(), real=False)",
     "metric.update(real.double().cpu(), real=False)", EVALUATION, ""),
    ("evaluation/quality.py", "(found == labels)", "(found != labels)", EVALUATION, ""),
    ("vae.py", "torch.set_rng_state(self._random_state[\"cpu\"])", "pass", RESUME, INTERRUPTED),
    ("data/resident.py", "return self.order()[done:]", "return self.order()", RESUME, INTERRUPTED),
    ("data/resident.py", "[self.seed, self.epoch]", "[self.seed]", "test_data.py", "order"),
    ("data/datamodule.py", "sampler.set_epoch(self.trainer.current_epoch)", "pass", RESUME, INTERRUPTED),
    ("callbacks.py", "for name in (\"seconds\", \"images\", \"validated\"))\n",
     "for name in (\"seconds\", \"images\", \"validated\"))\n        self.images = 0\n", RESUME, INTERRUPTED),
    ("objectives.py", "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64))",
     "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64), persistent=False)", RESUME, INTERRUPTED),
    ("train.py", "purge_step=steps_taken + 1", "purge_step=steps_taken + 3", RESUME, "logged_once"),
    ("checkpoints.py", "        if due or number:\n            self._save(trainer)\n", "", RESUME, INTERRUPTED),
    ("checkpoints.py", "raise Interrupted(128 + number)\n\n    def on", "pass\n\n    def on", RESUME, INTERRUPTED),
    ("runs.py", "partial = path.with_name(path.name + \".partial\")", "partial = path", RESUME, "replaced_at_once"),
    ("resuming.py", "if was != is_now:", "if False:", RESUME, "sweep_goes_on"),
    ("train.py", "        if run.finished:\n", "        if False:\n", RESUME, "sweep_goes_on"),
    ("checkpoints.py", "if Checkpoints.stop_signal or not", "if not", RESUME, "second"),
    ("train.py", "log.error(\"interrupted %s: %s\", run.name, kept)", "pass", RESUME, "signal_keeps"),
]  # fmt: skip


def killer(mutant: tuple[str, str, str, str, str]) -> str:
    """The test that notices a mutant; empty where none does."""
    file, old, new, tests, chosen = mutant
    with tempfile.TemporaryDirectory() as temporary:
        copy = Path(temporary)
        for name in ("vae_lightning", "conf", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "vae_lightning" / file
        source = path.read_text()
        if source.count(old) != 1:
            raise SystemExit(f"{file}: {old!r} stands there {source.count(old)} times")
        path.write_text(source.replace(old, new))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts=", f"tests/{tests}", "-m", "not slow"]
        done = subprocess.run(
            [*command, *(["-k", chosen] if chosen else [])],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )
    if done.returncode == 0:
        return ""
    found = re.search(r"^(?:FAILED|ERROR) \S+?::(\S+)", done.stdout, re.MULTILINE)
    if done.returncode != 1 or not found:
        raise SystemExit(f"{file}: {old!r}: the tests did not run\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return found[1]


def main() -> None:
    """Puts in every mutant that was chosen."""
    words = sys.argv[1:]
    chosen = [mutant for mutant in MUTANTS if not words or any(word in mutant[0] + mutant[1] for word in words)]
    alive = 0
    for mutant in chosen:
        by = killer(mutant)
        alive += not by
        print(f"{mutant[0]:28} {mutant[1].strip().splitlines()[0][:60]:62} {by or 'LIVES'}", flush=True)
    print(f"{len(chosen) - alive} of {len(chosen)} killed")
    sys.exit(1 if alive else 0)


if __name__ == "__main__":
    main()
