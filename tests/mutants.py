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
ENGINE, LIGHTNING = "test_engine.py", "test_lightning_parts.py"
LABELS, SEMI = "test_conditional.py", "test_semi_supervised.py"
INTERRUPTED = "from_anywhere or with_anything"

# File, text, its replacement, the test file, and which of its tests.
MUTANTS = [
    ("objectives/elbo.py", "return distortion + rate\n", "return distortion - rate\n", OBJECTIVES, ""),
    ("objectives/beta.py", "distortion + self.beta * rate", "distortion + rate", OBJECTIVES, ""),
    ("objectives/annealed.py", "self.taken * self.cycles / self.steps", "self.taken / self.steps", OBJECTIVES, ""),
    ("objectives/annealed.py", "self.taken += 1", "self.taken += 2", OBJECTIVES, ""),
    ("objectives/annealed.py", "position / self.ramp", "position * self.ramp", OBJECTIVES, ""),
    ("objectives/annealed.py", "self.taken < self.steps, rising", "self.taken > self.steps, rising", OBJECTIVES, ""),
    ("objectives/free_bits.py", "clamp(min=self.nats)", "clamp(max=self.nats)", OBJECTIVES, ""),
    ("objectives/free_bits.py", "by_dimension.mean(0).clamp", "by_dimension.sum(0).clamp", OBJECTIVES, ""),
    ("objectives/iwae.py", "math.log(self.samples) - (", "-(", OBJECTIVES, ""),
    ("objectives/iwae.py", "(-distortion - rate).logsumexp(0)", "(-distortion - rate).mean(0)", OBJECTIVES, ""),
    ("objectives/mmd.py", "(1 - self.alpha) * found", "self.alpha * found", OBJECTIVES, ""),
    ("objectives/mmd.py", "self.alpha + self.weight - 1", "self.alpha + self.weight", OBJECTIVES, ""),
    ("objectives/mmd.py", "/ (2 * dimension)", "/ dimension", OBJECTIVES, ""),
    ("objectives/mmd.py", "kernel(a, a).sum() - count", "kernel(a, a).sum()", OBJECTIVES, ""),
    ("objectives/mmd.py", "2 * kernel(one, other)", "kernel(one, other)", OBJECTIVES, ""),
    ("objectives/tc.py", "(self.beta - 1) * correlation", "self.beta * correlation", OBJECTIVES, ""),
    ("objectives/tc.py", "(marginal.logsumexp(1) - log_count)", "marginal.logsumexp(1)", OBJECTIVES, ""),
    ("objectives/as_printed.py", "noise * posterior.stddev.log()", "noise * posterior.stddev", OBJECTIVES, ""),
    ("objectives/m2.py", "rates + log_q", "rates", SEMI, ""),
    ("objectives/m2.py", "+ math.log(self.classes)", "", SEMI, ""),
    ("objectives/m2.py", "/ (self.labelled if", "/ (1.0 if", SEMI, ""),
    ("objectives/m2.py", "if self.training else 1.0", "", SEMI, ""),
    ("objectives/m2.py", "self.alpha * classification", "classification", SEMI, ""),
    ("objectives/m2.py", "torch.where(known.unsqueeze(1),", "torch.where(~known.unsqueeze(1),", SEMI, ""),
    ("objectives/m2.py", "full_like(labels, y)", "full_like(labels, 0)", SEMI, ""),
    ("architectures/conditional.py", "labels.clamp(min=-1) + 1", "labels.clamp(min=0)", LABELS, "vector"),
    ("architectures/conditional.py", "self.weight.mean(0, keepdim=True)", "self.weight[:1]", LABELS, "vector"),
    ("architectures/conditional.py", "[x, pictures.expand(", "[x, 0 * pictures.expand(", LABELS, "architecture"),
    ("priors.py", "embedding(labels, self.log_scales)", "embedding(0 * labels, self.log_scales)", LABELS, "prior"),
    ("priors.py", "Normal(means, log_scales.exp()", "Normal(means, (0.5 * log_scales).exp()", LABELS, "prior"),
    ("data/datamodule.py", ">= self.label_dropout, -1)", "< self.label_dropout, -1)", LABELS, "dropped"),
    ("data/images.py", "self.known[self.chosen[indices]]", "~self.known[self.chosen[indices]]", LABELS, "share"),
    ("data/images.py", "= self._labels[chosen]\n", "= 0\n", LABELS, "share"),
    ("generate/images.py", "options.temperature, labels)", "options.temperature)", LABELS, "name_or_number"),
    ("callbacks/latent_explorer.py", "[1:2], label, device", "[1:2], 0, device", LABELS, "explored"),
    ("rates.py", "return posterior.log_prob(z) - prior.log_prob(z)", "return prior.log_prob(z)", OBJECTIVES, ""),
    ("posteriors.py", "(0.5 * log_variance).exp()", "log_variance.exp()", "test_architectures.py", ""),
    ("evaluation/bounds.py", "+ prior.log_prob(z) - posterior", "- prior.log_prob(z) - posterior", OBJECTIVES, ""),
    ("evaluation/bounds.py", "total - math.log(samples)", "total", OBJECTIVES, ""),
    ("evaluation/bounds.py", "yield min(largest, total - start)", "yield largest", OBJECTIVES, ""),
    ("evaluation/bounds.py", "flatten(1).mean(1)", "flatten(1).sum(1)", EVALUATION, ""),
    ("evaluation/codes.py", "torch.stack(totals).sum(0) / images", "torch.stack(totals).mean(0)", EVALUATION, ""),
    ("evaluation/codes.py", "- torch.outer(self.mean, self.mean)", "", EVALUATION, ""),
    ("evaluation/codes.py", "self.covariance_of_means + self._within / self.count", "self.covariance_of_means",
     EVALUATION, ""),
    ("evaluation/codes.py", "covariance_of_means.diagonal() > threshold", "covariance_of_means.diagonal() < threshold",
     EVALUATION, ""),
    ("evaluation/geometry.py", "steps.amax(1) / steps.sum(1)", "steps.amin(1) / steps.sum(1)", EVALUATION, ""),
    ("latent_spaces.py", "directions[:, [-1, -2]]", "directions[:, [0, 1]]", EVALUATION, ""),
    ("evaluation/geometry.py", "torch.arange(cells) + 0.5", "torch.arange(cells) + 0.4", EVALUATION, ""),
    ("evaluation/geometry.py", "steps.flip(0), steps", "steps, steps", EVALUATION, ""),
    ("rates.py", "+ weights.unsqueeze(-1)).logsumexp(-2)", ").logsumexp(-2)", EVALUATION, ""),
    ("latent_spaces.py", "codes[row, :, dimension] = values", "codes[row, :, row] = values", EVALUATION, ""),
    ("evaluation/probes.py", "trustworthiness(shown, truth,", "trustworthiness(truth, shown,", EVALUATION, ""),
    ("evaluation/quality.py", "metric.update(other.double().cpu(), real=False)",
     "metric.update(real.double().cpu(), real=False)", EVALUATION, ""),
    ("evaluation/quality.py", "(found == labels)", "(found != labels)", EVALUATION, ""),
    ("engine/random_state.py", "torch.set_rng_state(self._restored[\"cpu\"])", "pass", RESUME, INTERRUPTED),
    ("data/loaders.py", "return self.order()[done:]", "return self.order()", RESUME, INTERRUPTED),
    ("data/loaders.py", "[self.seed, self.epoch]", "[self.seed]", "test_data.py", "order"),
    ("data/datamodule.py", "sampler.set_epoch(self.trainer.current_epoch)", "pass", RESUME, INTERRUPTED),
    ("callbacks/stopwatch.py", "for name in (\"seconds\", \"images\", \"validated\"))\n",
     "for name in (\"seconds\", \"images\", \"validated\"))\n        self.images = 0\n", RESUME, INTERRUPTED),
    ("objectives/annealed.py", "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64))",
     "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64), persistent=False)", RESUME, INTERRUPTED),
    ("building.py", "purge_step=steps_taken + 1", "purge_step=steps_taken + 3", RESUME, "logged_once"),
    ("callbacks/checkpoints.py", "        if due or number:\n            self._save(trainer, pl_module)\n", "",
     RESUME, INTERRUPTED),
    ("engine/signals.py", "raise Interrupted(128 + number)\n\n    def _", "pass\n\n    def _", RESUME, INTERRUPTED),
    ("runs/files.py", "partial = path.with_name(path.name + \".partial\")", "partial = path",
     RESUME, "replaced_at_once"),
    ("runs/resuming.py", "if str(was) == str(is_now):", "if True:", RESUME, "sweep_goes_on"),
    ("training.py", "if config.resume and run.finished and not extends:", "if False:", RESUME, "sweep_goes_on"),
    ("engine/signals.py", "if self.number or not", "if not", RESUME, "second"),
    ("cli.py", "log.error(\"interrupted %s: %s\", run.name, kept)", "pass", RESUME, "signal_saves"),
    ("engine/noise.py", "return whole.narrow(axis, self.start,", "return whole.narrow(axis, 0,", ENGINE, "share"),
    ("engine/strategies.py", "inputs=own, ", "", "test_foreign.py", "own_term"),
    ("engine/strategies.py", "if schedule.interval == \"step\":", "if False:", LIGHTNING, "schedules"),
    ("engine/strategies.py", "torch.manual_seed(batch_idx)", "pass", "test_vae.py", "means_over_images"),
    ("engine/steps.py", "limit_train_batches //= steps", "limit_train_batches //= 1", ENGINE, "steps_per_call"),
    ("callbacks/checkpoints.py", "if self._saved != _fingerprint(pl_module):", "if False:", LIGHTNING, "averaged"),
    ("building.py", "callbacks.sort(key=", "sorted(callbacks, key=", LIGHTNING, "extended_keeps_the_best"),
    ("training.py", "model.load_state_dict(found[\"state_dict\"])", "pass", LIGHTNING, "best_checkpoint_is"),
    ("vae.py", "prior.attach(encoder)", "pass", "test_combinations.py", "vamp"),
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
            raise SystemExit(f"{file}: {old!r} occurs {source.count(old)} times")
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
