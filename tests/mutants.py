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

import pytest

ROOT = Path(__file__).parents[1]
OBJECTIVES, METRICS, RESUME = "test_objectives.py", "test_metrics.py", "test_resume.py"
BOUNDS, REGULARISERS, ADVERSARIES = "test_bounds_of_many_samples.py", "test_regularisers.py", "test_adversaries.py"
LIKELIHOODS, PROCESSES, COMBINATIONS = "test_likelihoods.py", "test_processes.py", "test_combinations.py"
ENGINE, LIGHTNING = "test_engine.py", "test_lightning_parts.py"
DISTRIBUTIONS, SPACES, FITTED = "test_distributions.py", "test_latent_spaces.py", "test_fit_prior.py"
MEASURING, TEMPERATURE = "test_known_metrics.py", "test_temperature.py"
SUPPORT, OUTLIERS = "test_support.py", "test_outliers.py"
FINDING, DIFFERENCES = "test_finding.py", "test_differences.py"
PRETENDED, FRONTIER = "test_pretended_gpu.py", "test_frontier.py"
NOTES, CLAIMS, ANNEALING = "test_notes.py", "test_claims.py", "test_annealing.py"
INFORMATION, MODELS = "test_information.py", "test_measured_models.py"
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
    ("objectives/free_bits.py", "clamp(min=self.nats * size)", "clamp(max=self.nats * size)", OBJECTIVES, ""),
    ("objectives/free_bits.py", "found.mean(0).clamp", "found.sum(0).clamp", OBJECTIVES, ""),
    ("objectives/importance.py", "math.log(log_weights.shape[axis]) - log", "-log", OBJECTIVES, ""),
    ("objectives/importance.py", "log_weights.logsumexp(axis)", "log_weights.mean(axis)", OBJECTIVES, ""),
    ("objectives/mmd.py", "(1 - self.alpha) * found", "self.alpha * found", OBJECTIVES, ""),
    ("objectives/mmd.py", "self.alpha + self.weight - 1", "self.alpha + self.weight", OBJECTIVES, ""),
    ("objectives/mmd.py", "/ (2 * dimension)", "/ dimension", OBJECTIVES, ""),
    ("objectives/mmd.py", "found.sum() - found.diagonal().sum()", "found.sum()", OBJECTIVES, ""),
    ("objectives/mmd.py", "2 * matrix(one, other)", "matrix(one, other)", OBJECTIVES, ""),
    ("objectives/tc.py", "(self.beta - 1) * correlation", "self.beta * correlation", OBJECTIVES, ""),
    ("objectives/tc.py", "(marginal.logsumexp(1) - log_count)", "marginal.logsumexp(1)", OBJECTIVES, ""),
    ("objectives/as_printed.py", "noise * deviation.log()", "noise * deviation", OBJECTIVES, ""),
    ("objectives/miwae.py", "(0, (self.bounds, self.samples))", "(0, (self.samples, self.bounds))", BOUNDS, ""),
    ("objectives/miwae.py", "importance_bound(log_weights, 1).mean(0)", "importance_bound(log_weights, 1).sum(0)",
     BOUNDS, ""),
    ("objectives/piwae.py", "\"loss\": importance_bound(log_weights)", "\"loss\": of_encoder", BOUNDS, ""),
    ("objectives/piwae.py", "unflatten(0, (self.bounds, self.samples)), 1)", "unflatten(0, (1, -1)), 1)", BOUNDS, ""),
    ("objectives/ciwae.py", "(1 - self.beta) * importance", "self.beta * importance", BOUNDS, ""),
    ("objectives/dreg.py", "torch.autograd.grad(-(squares * log_weights).sum(), code, retain_graph=True)",
     "(g * squares[..., None] for g in torch.autograd.grad(-log_weights.sum(), code, retain_graph=True))",
     BOUNDS, "batch_norm"),
    ("objectives/dreg.py", "softmax(0).square()", "softmax(0)", BOUNDS, ""),
    ("objectives/dreg.py", "stopped(posterior).log_prob", "posterior.log_prob", BOUNDS, ""),
    ("posteriors/functions.py", "posterior.scale_tril.detach()", "posterior.scale_tril * 2", BOUNDS, ""),
    ("objectives/factor.py", "argsort(0))", "argsort(0)[:, :1].expand_as(z))", ADVERSARIES, ""),
    ("objectives/factor.py", "self.gamma * correlation", "self.gamma * correlation.exp()", ADVERSARIES, ""),
    ("objectives/discriminator.py", "functional.softplus(-real) + functional.softplus(other)",
     "functional.softplus(real) + functional.softplus(-other)", ADVERSARIES, ""),
    ("objectives/adversarial.py", "softplus(-of_codes)", "softplus(of_codes)", ADVERSARIES, ""),
    ("objectives/adversarial.py", "telling_apart(of_prior, of_codes)", "telling_apart(of_codes, of_prior)",
     ADVERSARIES, ""),
    ("objectives/vae_gan.py", "found + self.gamma * learned + fooling", "found + self.gamma * learned - fooling",
     ADVERSARIES, ""),
    ("objectives/vae_gan.py", "\"encoder_loss\": found + learned", "\"encoder_loss\": found + self.gamma * learned",
     ADVERSARIES, ""),
    ("objectives/dip.py", "square().sum() - diagonal.square().sum()", "square().sum()", REGULARISERS, ""),
    ("objectives/dip.py", "_covariance(means) + (", "(", REGULARISERS, ""),
    ("objectives/dip.py", "points - points.mean(0)", "points", REGULARISERS, ""),
    ("objectives/wae_mmd.py", "2 * dimension * scale", "2 * scale", REGULARISERS, ""),
    ("objectives/wae_mmd.py", "width / (width + distances)", "width / (width + distances.sqrt())", REGULARISERS, ""),
    ("objectives/wae_mmd.py", "require_fixed_prior(self, model)", "pass", COMBINATIONS, "wae_mmd-diagonal-flow"),
    ("objectives/rae.py", "0.5 * self.beta", "self.beta", REGULARISERS, ""),
    ("objectives/rae.py", "parameter.square().sum() for", "parameter.abs().sum() for", REGULARISERS, ""),
    ("objectives/rae.py", "grad(mean, z, probe, create_graph=True)", "grad(mean, z, probe)", OBJECTIVES,
     "finite_differences and RAEGP"),
    ("objectives/rae.py", "torch.randn_like(mean)", "torch.ones_like(mean)", REGULARISERS, ""),
    ("objectives/geco.py", "lerp(now, 1 - self.smoothing)", "lerp(now, self.smoothing)", REGULARISERS, ""),
    ("objectives/geco.py", "torch.where(self.seen, ", "torch.where(~self.seen, ", REGULARISERS, ""),
    ("objectives/geco.py", "means, _ = batch_means({\"violation\": violation})",
     "means = {\"violation\": violation.mean()}", PROCESSES, "geco"),
    ("objectives/geco.py", "register_buffer(\"multiplier\", torch.ones(()))",
     "register_buffer(\"multiplier\", torch.ones(()), persistent=False)", RESUME, "geco"),
    ("posteriors/vector_quantised.py", "with full_precision(vectors):", "if True:", "test_codes.py", "mixed"),
    ("objectives/ms_ssim.py", "last = scale == scales - 1", "last = scale == scales", REGULARISERS, ""),
    ("objectives/ms_ssim.py", "found[..., MARGIN:-MARGIN, MARGIN:-MARGIN]", "found", REGULARISERS, ""),
    ("objectives/ms_ssim.py", "/ sum(EXPONENTS[:scales])", "", REGULARISERS, ""),
    ("objectives/ms_ssim.py", "clamp(min=FLOOR)", "clamp(min=0)", REGULARISERS, ""),
    ("objectives/ms_ssim.py", "with full_precision(one):", "if True:", REGULARISERS, ""),
    ("likelihoods/gaussian.py", "view(-1, by_image.shape[-1]).mean(0)", "view(-1, by_image.shape[-1])[0]",
     LIKELIHOODS, ""),
    ("likelihoods/gaussian.py", "(1 / (self.batches + 1)).clamp(min=self.momentum)",
     "(1 / (self.batches + 1)).clamp(max=self.momentum)", LIKELIHOODS, ""),
    ("likelihoods/gaussian.py", "means, _ = batch_means({\"variance\": by_image})",
     "means = {\"variance\": by_image.mean()}",
     PROCESSES, "geco"),
    ("engine/batch_norm.py", "return _Sum.apply(gradients[0])", "return _Sum.forward(ctx, gradients[0])",
     PROCESSES, "rae_gp"),
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
    ("priors/class_conditional.py", "embedding(labels, self.log_scales)", "embedding(0 * labels, self.log_scales)",
     LABELS, "prior"),
    ("priors/class_conditional.py", "Normal(means, log_scales.exp()", "Normal(means, (0.5 * log_scales).exp()",
     LABELS, "prior"),
    ("data/datamodule.py", ">= self.label_dropout, -1)", "< self.label_dropout, -1)", LABELS, "dropped"),
    ("data/images.py", "self.known[self.chosen[indices]]", "~self.known[self.chosen[indices]]", LABELS, "share"),
    ("data/images.py", "= self._labels[chosen]\n", "= 0\n", LABELS, "share"),
    ("generate/images.py", "options.temperature, labels)", "options.temperature)", LABELS, "name_or_number"),
    ("callbacks/latent_explorer.py", "[1:2], label, device", "[1:2], 0, device", LABELS, "explored"),
    ("rates.py", "return posterior.log_prob(z) - prior.log_prob(z)", "return prior.log_prob(z)", OBJECTIVES, ""),
    ("posteriors/gaussian.py", "(0.5 * log_variance).exp()", "log_variance.exp()", "test_architectures.py", ""),
    ("metrics/bounds.py", "+ prior.log_prob(z) - posterior", "- prior.log_prob(z) - posterior", OBJECTIVES, ""),
    ("metrics/bounds.py", "mean(0) - math.log(samples)", "mean(0)", OBJECTIVES, ""),
    ("metrics/bounds.py", "(groups, samples))", "(samples, groups))", METRICS, "doubled"),
    ("metrics/bounds.py", "of_squares).exp() / len(log_weights)", "of_squares).exp()", METRICS, "share"),
    ("metrics/information.py", "log_probs.scatter(1, position, -math.inf)", "log_probs", INFORMATION, ""),
    ("metrics/information.py", "math.log(log_probs.shape[1] - 1)", "0", INFORMATION, ""),
    ("metrics/information.py", "joint.logsumexp(1) - math.log(len(codes))", "joint.logsumexp(1)", INFORMATION, ""),
    ("metrics/information.py", "reversed(halves)", "halves", INFORMATION, "judged"),
    ("metrics/information.py", "bounds = [total, ", "bounds = [", INFORMATION, "at_most_the_rate"),
    ("metrics/information.py", ", _mean(known - without)]", "]", INFORMATION, "repeated"),
    ("metrics/information.py", "    if euclidean:", "    if False:", INFORMATION, "correlated"),
    ("metrics/information.py", "    if euclidean:", "    if True:", MODELS, "directions"),
    ("metrics/information.py", "bounds.append(total - dimensionwise)", "pass", INFORMATION, "independent"),
    ("metrics/information.py", "and _independent(prior, codes)", "", INFORMATION, "at_most_the_rate"),
    ("metrics/information.py", "_mean(product - of_prior[chosen])", "_mean(product)", INFORMATION, "linear"),
    ("metrics/information.py", "min(upper, _mean(known - among))", "upper", INFORMATION, "correlated"),
    ("measuring/information.py", "euclidean=model.latent_space.unbounded", "euclidean=True",
     MODELS, "directions"),
    ("measuring/information.py", "if prior.batch_shape:", "if False:", MODELS, "conditional"),
    ("measuring/averages.py", "train.mean - test.mean[0]", "train.mean - test.mean[-1]", MEASURING, "elbo"),
    ("measuring/averages.py", "min(subject.sizes.training_images, test.elbo.count)", "subject.sizes.training_images",
     MEASURING, "elbo"),
    ("measuring/averages.py", "train.error.square() + test", "test", MEASURING, "elbo"),
    ("metrics/codes.py", "threshold * covariance_of_prior.diagonal()", "threshold", METRICS, "active"),
    ("metrics/probes.py", "KMeans(count,", "KMeans(2,", METRICS, "clusters"),
    ("metrics/probes.py", "(found[some], classes[some])", "(found[some], clusters[some])", METRICS, "silhouette"),
    ("evaluating/evaluate.py", "{\"training_images\": 0, **sizes}", "sizes", "test_evaluate.py", "other_data_are_seen"),
    ("report/table.py", "(active == 0) & (rate >= NOTHING)", "(active == 0)", NOTES, "hardly_used"),
    ("report/table.py", "table[table[\"test/code_perplexity\"].isna()]", "table", NOTES, "hardly_used"),
    ("report/table.py", "noisy[\"latent_dim\"]) & ~unused", "noisy[\"latent_dim\"])", NOTES, "hardly_used"),
    ("metrics/probes.py", "PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)", "PENALTIES = (1.0,)", METRICS,
     "penalty"),
    ("metrics/reference.py", "(images[learnt], labels[learnt])", "(images, labels)", "test_reference.py", "held_out"),
    ("metrics/reference.py", "data.examples(name, probe_images)", "data.examples(name, IMAGES)",
     "test_reference.py", "same"),
    ("plots.py", "len(series) >= 5 and", "len(series) >= 2 and", "test_plots.py", "outside"),
    ("measuring/averages.py", "self.elbo.mean + self.above.mean", "self.curve.mean", MEASURING, ""),
    ("measuring/averages.py", "1 / self.above.count - 1 / self.elbo.count", "1 / self.above.count", MEASURING, ""),
    ("measuring/averages.py", "self.curve.variance / self.elbo.count", "self.curve.variance / self.curve.count",
     MEASURING, ""),
    ("measuring/averages.py", "* bound.elbo.count) - bound.curve.count", "* len(images))", MEASURING, ""),
    ("measuring/averages.py", "torch.randperm(len(images))[:quota].sort().values", "torch.arange(len(images))[:quota]",
     MEASURING, ""),
    ("runs/where.py", "isinstance(op, ast.NotEq | ast.NotIn) and left is not right", "True", FINDING, "conditions"),
    ("runs/where.py", "return next((found[0]", "return next((None", FINDING, "conditions"),
    ("runs/where.py", "all if isinstance(node.op, ast.And) else any", "any", FINDING, "conditions"),
    ("runs/finding.py", "within.clear()", "pass", FINDING, "any_depth"),
    ("runs/finding.py", " and \"environment.json\" in files", "", FINDING, "any_depth"),
    ("runs/claiming.py", "lock.acquire(timeout=0)", "return False", FINDING, "trained_twice"),
    ("runs/__main__.py", "ranked[arguments.keep_best :]", "ranked[: arguments.keep_best]", FINDING, "named_is_deleted"),
    ("report/differences.py", "apart = one - other", "apart = other - one", DIFFERENCES, "paired"),
    ("report/differences.py", "stats.t(len(apart) - 1)", "stats.t(len(apart))", DIFFERENCES, "paired"),
    ("report/differences.py", "2 * student.sf(", "student.sf(", DIFFERENCES, "marked"),
    ("report/significance.py", "np.ptp(differences) <= ROUNDING * scale", "np.ptp(differences) == 0",
     DIFFERENCES, "counts"),
    ("runs/ranking.py", "if apart := different(", "if False and different(", FINDING, "ranked"),
    ("report/significance.py", "LEVEL / (len(p_values) - rank)", "LEVEL", DIFFERENCES, "marked"),
    ("report/frontier.py", "distortions < np.minimum.accumulate", "distortions <= np.minimum.accumulate", FRONTIER,
     "beats"),
    ("report/frontier.py", "max(rates[0] for rates", "min(rates[0] for rates", FRONTIER, "area"),
    ("report/frontier.py", "/ (high - low)", "", FRONTIER, "area"),
    ("engine/step_options.py", "\"capturable\" in optimizer.defaults or ", "", ENGINE, "recorded"),
    ("report/differences.py", "(1 + CONFIDENCE) / 2", "CONFIDENCE", DIFFERENCES, "paired"),
    ("report/differences.py", ">= asked:", "& asked:", DIFFERENCES, "none_or_several"),
    ("report/compare.py", "if len({run.version for run in found if run.version}) > 1:", "if False:",
     DIFFERENCES, "apart"),
    ("measuring/annealing.py", "piece, sizes.bound_samples)", "piece, sizes.bound_samples).cpu()", PRETENDED, "[vae]"),
    ("metrics/codes.py", "means = mean.cpu().double()", "means = mean.double()", PRETENDED, "[vae]"),
    ("measuring/averages.py", "curve[-1] - bounds.bound_with(", "curve[0] - bounds.bound_with(", MEASURING, "settled"),
    ("measuring/distances.py", "of_test[some], unseen", "of_test, unseen", MEASURING, "as_many"),
    ("measuring/distances.py", "(\"floor\", \"_real\")", "(\"samples\", \"_real\")", MEASURING, "samples_are"),
    ("measuring/averages.py", "elbo.error.item()", "elbo.mean.item()", MEASURING, "bootstrap"),
    ("measuring/averages.py", "torch.manual_seed(number)", "pass", "test_measurements.py", "no_metric"),
    ("metrics/bounds.py", "- rate(posterior, prior, z)", "+ rate(posterior, prior, z)", MEASURING, "bootstrap"),
    ("measuring/copies.py", "(distances.median() / unit)", "distances.median()", MEASURING, "copies"),
    ("measuring/copies.py", "training[numbers.cpu()[shown]]", "training[shown]", MEASURING, "copies"),
    ("measuring/copies.py", "subject.examples(\"train\", subject", "subject.examples(\"test\", subject", MEASURING,
     "copies"),
    ("metrics/support.py", "kthvalue(k + 1)", "kthvalue(k)", SUPPORT, ""),
    ("metrics/support.py", "(distances <= radii[:, None])", "inside", SUPPORT, ""),
    ("metrics/support.py", "(found > 0).double()", "(found > 1).double()", SUPPORT, ""),
    ("metrics/support.py", "counts.mean().item() / k", "counts.mean().item()", SUPPORT, ""),
    ("metrics/support.py", "found.std(0) *", "found.var(0) *", SUPPORT, ""),
    ("metrics/support.py", "other[half])", "other[:size])", SUPPORT, "means"),
    ("metrics/support.py", "[:size].to(", "[: size // 2].to(", SUPPORT, "means"),
    ("metrics/outliers.py", "-bounds / math.log(2) - lengths", "-bounds - lengths", OUTLIERS, ""),
    ("metrics/outliers.py", "(bounds - usual).abs()", "(bounds - usual)", OUTLIERS, ""),
    ("metrics/outliers.py", "8.0 * file.tell()", "1.0 * file.tell()", OUTLIERS, ""),
    ("metrics/outliers.py", "torch.zeros(len(inside)), torch.ones(len(outside))",
     "torch.ones(len(inside)), torch.zeros(len(outside))", OUTLIERS, ""),
    ("evaluating/against.py", "{\"bound\": -bounds", "{\"bound\": bounds", OUTLIERS, "areas"),
    ("evaluating/against.py", "typicality(bounds, usual)", "typicality(bounds, bounds.mean())", OUTLIERS, "areas"),
    ("measuring/paths.py", "decoded(3)[:, 1], \"_crossfade\"", "decoded(3)[:, 0], \"_crossfade\"", MEASURING,
     "half_way"),
    ("metrics/quality.py", "means.bernoulli() if binary else means", "means", MEASURING, "like"),
    ("priors/temperature.py", "Normal(prior.loc, temperature", "Normal(temperature * prior.loc, temperature",
     TEMPERATURE, "components"),
    ("priors/temperature.py", "scale_tril=temperature * prior", "scale_tril=prior", TEMPERATURE, "components"),
    ("report/table.py", "rising.any()", "rising.all()", NOTES, "seeds"),
    ("report/table.py", "& (rows[rise] > rows[error])", "", NOTES, "marked"),
    ("report/claims.py", "_above(crossfade, halfway, MARGIN)", "_above(crossfade, 0.0, MARGIN)", CLAIMS, "smooth"),
    ("report/claims.py", "_above(-steps, -0.25), ", "", CLAIMS, "smooth"),
    ("metrics/bounds.py", "yield min(largest, total - start)", "yield largest", OBJECTIVES, ""),
    ("metrics/bounds.py", "flatten(1).mean(1)", "flatten(1).sum(1)", METRICS, ""),
    ("metrics/codes.py", "torch.stack(totals).sum(0) / images", "torch.stack(totals).mean(0)", METRICS, ""),
    ("metrics/codes.py", "- torch.outer(self.mean, self.mean)", "", METRICS, ""),
    ("metrics/codes.py", "self.covariance_of_means + self._within / self.count", "self.covariance_of_means",
     METRICS, ""),
    ("metrics/codes.py", "covariance_of_means.diagonal() > threshold", "covariance_of_means.diagonal() < threshold",
     METRICS, ""),
    ("metrics/geometry.py", "steps.amax(1) / steps.sum(1)", "steps.amin(1) / steps.sum(1)", METRICS, ""),
    ("latent_spaces/euclidean.py", "directions[:, [-1, -2]]", "directions[:, [0, 1]]", METRICS, ""),
    ("latent_spaces/lattices.py", "torch.arange(cells) + 0.5", "torch.arange(cells) + 0.4", METRICS, ""),
    ("latent_spaces/lattices.py", "steps.flip(0), steps", "steps, steps", METRICS, ""),
    ("rates.py", "+ weights.unsqueeze(-1)).logsumexp(-2)", ").logsumexp(-2)", METRICS, ""),
    ("latent_spaces/euclidean.py", "codes[row, :, dimension] = values", "codes[row, :, row] = values", METRICS, ""),
    ("metrics/probes.py", "trustworthiness(shown, truth,", "trustworthiness(truth, shown,", METRICS, ""),
    ("metrics/quality.py", "metric.update(other.cpu().double(), real=False)",
     "metric.update(real.cpu().double(), real=False)", METRICS, ""),
    ("metrics/quality.py", "(found == labels)", "(found != labels)", METRICS, ""),
    ("engine/random_state.py", "torch.set_rng_state(self._restored[\"cpu\"])", "pass", RESUME, INTERRUPTED),
    ("data/loaders.py", "return self.order()[done:]", "return self.order()", RESUME, INTERRUPTED),
    ("data/loaders.py", "[self.seed, self.epoch]", "[self.seed]", "test_data.py", "order"),
    ("data/datamodule.py", "sampler.set_epoch(epoch)", "pass", RESUME, INTERRUPTED),
    ("data/datamodule.py", "            leave_ended_epoch(self.trainer)\n", "", RESUME, "whole_ones"),
    ("callbacks/stopwatch.py", "for name in (\"seconds\", \"images\", \"validated\"))\n",
     "for name in (\"seconds\", \"images\", \"validated\"))\n        self.images = 0\n", RESUME, INTERRUPTED),
    ("objectives/annealed.py", "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64))",
     "self.register_buffer(\"taken\", torch.zeros((), dtype=torch.int64), persistent=False)", RESUME, INTERRUPTED),
    ("loggers/recording.py", "{\"purge_step\": steps_taken + 1}", "{\"purge_step\": steps_taken + 3}", RESUME,
     "logged_once"),
    ("callbacks/checkpoints.py",
     "self._due or (self.interruption and self.interruption.requested()):\n            self._save(trainer)",
     "False:\n            self._save(trainer)", RESUME, INTERRUPTED),
    ("engine/signals.py", "raise Interrupted(128 + number)\n\n    def _", "pass\n\n    def _", RESUME, INTERRUPTED),
    ("runs/atomic.py", "partial = path.with_name(path.name + \".partial\")", "partial = path",
     RESUME, "replaced_at_once"),
    ("runs/resuming.py", "if str(was) == str(is_now):", "if True:", RESUME, "sweep_goes_on"),
    ("training.py", "if config.resume and run.finished and not extends:", "if False:", RESUME, "sweep_goes_on"),
    ("engine/signals.py", "if self.number or not", "if not", RESUME, "second"),
    ("cli.py", "log.error(\"interrupted %s: %s\", run.name, kept)", "pass", RESUME, "signal_saves"),
    ("engine/noise.py", "return whole.narrow(axis, self.start,", "return whole.narrow(axis, 0,", ENGINE, "share"),
    ("engine/strategies.py", "inputs=own, ", "", "test_foreign.py", "own_term"),
    ("engine/strategies.py", "if schedule.interval == interval and", "if schedule.interval == \"epoch\" and", LIGHTNING,
     "schedules"),
    ("engine/strategies.py", "torch.manual_seed(batch_idx)", "pass", "test_vae.py", "means_over_images"),
    ("engine/step_options.py", "limit_train_batches //= steps", "limit_train_batches //= 1", ENGINE, "steps_per_call"),
    ("callbacks/checkpoints.py", "if self._saved != _fingerprint(pl_module.state_dict()):", "if False:", LIGHTNING,
     "averaged"),
    ("building.py", "callbacks.sort(key=", "sorted(callbacks, key=", LIGHTNING, "extended_keeps_the_best"),
    ("training.py", "model.load_state_dict(found[\"state_dict\"])", "pass", LIGHTNING, "best_checkpoint_is"),
    ("vae.py", "prior.attach(encoder)", "pass", "test_combinations.py", "vamp"),
    ("distributions/flow.py", "self.base.log_prob(u) - log_slope", "self.base.log_prob(u) + log_slope",
     DISTRIBUTIONS, ""),
    ("distributions/flow.py", "return self.base.log_prob(u) + log_slope", "return self.base.log_prob(u) - log_slope",
     DISTRIBUTIONS, ""),
    ("distributions/flow.py", "(z.requires_grad or not torch.is_grad_enabled())", "True", DISTRIBUTIONS, ""),
    ("distributions/flow.py", "z is self._drawn[0] and", "z.shape == self._drawn[0].shape and", DISTRIBUTIONS, ""),
    ("distributions/flow.py", "order.flip(0) if number % 2 else order", "order", "test_posteriors.py", "order"),
    ("precision.py", "if torch.amp.is_autocast_available(kind) else", "if False else", DISTRIBUTIONS, ""),
    ("distributions/flow.py", "Distribution.set_default_validate_args(_validating)", "pass", DISTRIBUTIONS, ""),
    ("distributions/sphere.py", "math.log(2) + dimensions", "dimensions", DISTRIBUTIONS, ""),
    ("distributions/sphere.py", "1 / len(self._like)", "1.0", DISTRIBUTIONS, ""),
    ("distributions/sphere.py", "return normalize(noise, dim=-1)", "return noise", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "self.power = dimensions - 2", "self.power = dimensions - 1",
     DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "panels = 8 + 4 *", "panels = 1 + 0 *", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "+ 9) / (2 *", "+ 1) / (2 *", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "ITERATIONS = 12", "ITERATIONS = 1", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "(angle - (step - step.detach()))", "angle", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "(angle - (step - step.detach()))", "(angle + (step - step.detach()))",
     DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "log_area(self.loc.shape[-1] - 1)", "log_area(self.loc.shape[-1])",
     DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "return p.entropy() - q.entropy()", "return q.entropy() - p.entropy()",
     DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "self._log_total + self.concentration * self._cosine_gap", "self._log_total",
     DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "/ (self.loc.shape[-1] - 1)", "/ self.loc.shape[-1]", DISTRIBUTIONS, ""),
    ("distributions/von_mises_fisher.py", "angle.sin() * normalize(across, dim=-1)", "angle.sin() * across",
     DISTRIBUTIONS, ""),
    ("posteriors/full_covariance.py", "0.5 * (squares - 1) - scales.log()", "0.5 * (squares - 1) + scales.log()",
     DISTRIBUTIONS, ""),
    ("posteriors/full_covariance.py", "type(p.base_dist) is not Normal", "False", DISTRIBUTIONS, ""),
    ("posteriors/flow.py", "return posterior.transform(point(posterior.base))", "return point(posterior.base)",
     "test_posteriors.py", "moved"),
    ("posteriors/iaf.py", "(1 - gate) * mean", "mean", "test_posteriors.py", "gate"),
    ("posteriors/von_mises_fisher.py", "return posterior.mode", "return posterior.mean", DISTRIBUTIONS, ""),
    ("priors/prior.py", "if theirs is not space:", "if False:", "test_combinations.py", "uniform_sphere"),
    ("priors/vamp.py", "self.latent_space = latent_space_of(encoder)", "pass", "test_posteriors.py", "vamp"),
    ("priors/vamp.py", "= False, None, None", "= True, None, None", "test_objectives.py", "VampPrior"),
    ("priors/flow.py", "-self.location / self.scale", "self.location / self.scale", FITTED, ""),
    ("priors/gaussian_mixture.py", "self.below.tril(-1) +", "self.below.triu(1) +", FITTED, ""),
    ("priors/two_stage.py", "- kl_divergence(posterior, self.latent)", "", DISTRIBUTIONS, "second_stage"),
    ("priors/two_stage.py", "(z - self.location) / self.scale", "z", DISTRIBUTIONS, "second_stage"),
    ("priors/fitting.py", "covariances.log() / 2", "covariances.log()", FITTED, ""),
    ("priors/fitting.py", "schedule.step()", "optimizer.zero_grad(); [p.data.zero_() for p in prior.parameters()]",
     FITTED, "learns"),
    ("runs/fitted_priors.py", "if weights != _weights(run.run):", "if False:", FITTED, ""),
    ("runs/fitted_priors.py", "vet({\"config\": config}, run.trust)", "pass", FITTED, ""),
    ("runs/fitted_priors.py", "    check_name(name)\n    file = run", "    file = run", FITTED, ""),
    ("generate/fit_prior.py", "model.prior = prior.eval()", "prior.eval()", FITTED, ""),
    ("generate/fit_prior.py", "run.model.prior = load_prior(run, name)", "load_prior(run, name)", FITTED, ""),
    ("latent_spaces/sphere.py", "2 * torch.atan2(", "torch.atan2(", SPACES, ""),
    ("latent_spaces/sphere.py", "found.norm(dim=-1, keepdim=True) > CLOSE", "found.norm(dim=-1, keepdim=True) > -1",
     SPACES, ""),
    ("latent_spaces/sphere.py", "coordinates[..., 1].asin()", "coordinates[..., 1]", SPACES, ""),
    ("latent_spaces/sphere.py", "(coordinates + axes @ self._plane.origin) @ axes", "coordinates @ axes", SPACES, ""),
    ("latent_spaces/sphere.py", "turn = math.pi * (1 - 1 / cells)", "turn = math.pi", SPACES, ""),
    ("rates.py", "posterior.rsample() if posterior.has_rsample else", "", OBJECTIVES, "gradient"),
    ("objectives/free_bits.py", "min=self.nats * size", "min=self.nats", OBJECTIVES, "one_group"),
    ("contracts.py", "        copy = deepcopy(model).eval()", "        copy = model",
     "test_posteriors.py", "leaves_no_trace"),
    ("metrics/annealing.py", "chains.move(betas[number], size)\n        advance", "advance", ANNEALING, ""),
    ("metrics/annealing.py", "momentum.square().sum(-1) / 2\n        codes", "0\n        codes", ANNEALING, ""),
    ("metrics/annealing.py", "codes = codes + size * momentum", "codes = codes + size / 2 * momentum", ANNEALING, ""),
    ("metrics/annealing.py", "probability = (after - before)", "probability = (before - after)", ANNEALING, ""),
    ("metrics/annealing.py", "reversed([*enumerate(sizes, 1)])", "[*enumerate(sizes, 1)]", ANNEALING, ""),
    ("metrics/annealing.py", "-_log_mean(-down)", "_log_mean(down)", ANNEALING, ""),
    ("metrics/annealing.py", "self.log_prior + beta", "self.log_prior + 1", ANNEALING, ""),
    ("metrics/annealing.py", " - math.log(len(log_weights))", "", ANNEALING, ""),
    ("measuring/annealing.py", "gap.update(upper - lower)", "gap.update(lower - upper)", MEASURING, "annealed"),
    ("measuring/annealing.py", "found - importance", "found + importance", MEASURING, "annealed"),
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
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-o", "addopts=", f"tests/{tests}"]
        for speed in ("not slow", "slow"):  # slow ones only if there are no others
            done = subprocess.run(
                [*command, "-m", speed, *(["-k", chosen] if chosen else [])],
                cwd=copy,
                env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
            )
            if done.returncode != pytest.ExitCode.NO_TESTS_COLLECTED:
                break
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
