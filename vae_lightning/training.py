"""Trains and tests one model and writes a finished run: build everything → fit → test → metrics.json."""

import logging
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint, StochasticWeightAveraging
from pytorch_lightning.utilities import rank_zero_only

from .building import Built, build
from .callbacks import Checkpoints
from .callbacks.divergence import refuse_divergence, refuse_values
from .config import check
from .config.messages import usage_errors
from .console import above_bars, printing, quiet
from .data.datamodule import ImageDataModule
from .engine.devices import bfloat16_speed
from .engine.lightning_internals import is_trial
from .engine.processes import Processes, is_member
from .engine.signals import Interrupted, Interruption
from .errors import UsageError
from .loggers.recording import finish, recording
from .runs import Run, claimed, forget_paths, short_names, short_path, write_file, write_json
from .runs.loading import LoadedRun, load_run
from .runs.provenance import environment
from .runs.resuming import check_same, steps_taken_at
from .vae import VAE

__all__ = ["Outcome", "execute", "train"]

log = logging.getLogger(__name__)


def train(config: DictConfig, folder: str | Path | None = None, progress: bool | None = None) -> LoadedRun:
    """Trains and tests a model, and returns the finished run.

    Args:
        config: as `compose` returns it.
        folder: the run's folder; by default a new one in `outputs/`. If it already holds a run, that run is resumed if
            `config.resume` is true, and an error otherwise.
        progress: whether to show a progress bar; by default on a terminal and in a notebook.

    Raises:
        UsageError: if an option is invalid.
        DivergenceError: if a term of the loss, a weight or a test metric is NaN or infinite.
        KeyboardInterrupt: if the run was interrupted; it can be resumed.

    >>> from vae_lightning import compose
    >>> run = train(compose("data=glyphs", "model.latent_dim=8"))  # doctest: +SKIP
    >>> run.metrics["test/elbo"], run.model.sample(16).shape  # doctest: +SKIP
    """
    started = datetime.now()
    run = Run(Path(folder or Path("outputs", f"{started:%Y-%m-%d_%H-%M-%S}_{config.study}_{os.urandom(3).hex()}")))
    if run.config_file.exists() and not config.resume:
        raise UsageError(f"folder={run.folder}: already holds a run; resume=true resumes it")
    shown = progress if progress is not None else sys.stdout.isatty() or "ipykernel" in sys.modules
    with printing():
        try:
            with usage_errors():
                check(config)
                model = execute(config, run, progress=shown).model
        except Interrupted as stop:
            raise KeyboardInterrupt(f"{short_path(run.folder)}: interrupted; its state has been saved") from stop
    trust = _modules(config)
    if model is None:
        return load_run(run.folder, trust=trust)
    return LoadedRun(Run(run.folder), model.cpu().eval().requires_grad_(False), run.config, tuple(trust))


class Outcome(NamedTuple):
    """The result of a run.

    Attributes:
        metrics: the content of `metrics.json`: the test metrics, per image in nats, and `epochs`, `steps`,
            `parameters`, `seconds_training`, `images_per_second`, `latent_dim` and `seed`.
        model: the tested model; None if the run had already finished.
    """

    metrics: dict[str, Any]
    model: VAE | None


def execute(config: DictConfig, run: Run, swept: Sequence[str] = (), progress: bool | None = None) -> Outcome:
    """Trains and tests one model and writes a finished run; called by both the Python API and the command line.

    Args:
        config: as composed from `conf/train.yaml`, or as another run recorded it; its `run_dir` is set here.
        run: the run to write.
        swept: keys that distinguish the run from others in its sweep.
        progress: whether to show a progress bar; by default on a terminal.

    Raises:
        UsageError: if an option is invalid, or another process is training the run.
        DivergenceError: if a term of the loss, a weight or a test metric is NaN or infinite.
    """
    if OmegaConf.select(config, "run_dir") == ".":
        config = OmegaConf.create(_placed(OmegaConf.to_container(config)))
    config.run_dir = str(run.folder)
    run.folder.mkdir(parents=True, exist_ok=True)
    # Of several processes of a training, SLURM's tasks among them, the first one claims the run for all.
    first = getattr(rank_zero_only, "rank", 0) == 0 and not is_member()
    with claimed(run) if first else nullcontext():
        return _execute(config, run, swept, progress)


def _execute(config: DictConfig, run: Run, swept: Sequence[str], progress: bool | None) -> Outcome:
    extends = config.resume and run.config_file.is_file() and check_same(config, run)
    if config.resume and run.finished and not extends:
        log.info("finished   %s already\n", short_path(run.folder))
        return Outcome(dict(run.metrics), None)
    checkpoint = run.checkpoint_file if config.resume and run.checkpoint_file.is_file() else None
    if config.resume and not checkpoint and not swept:  # a resumed sweep may add runs
        log.info("resuming   nothing: %s has no checkpoint, and is trained from the beginning", short_path(run.folder))
    digests = run.digests if checkpoint else {}
    with quiet(), Processes(config.trainer) as processes:
        seed_everything(config.seed, verbose=False)
        os.environ.pop("PL_GLOBAL_SEED")  # with it, Lightning would reseed other processes after the model is built
        steps_taken = steps_taken_at(checkpoint)
        built = build(config, steps_taken, progress)
        trainer = built.trainer
        loggers = dict(zip(map(str, config.logger), trainer.loggers, strict=False))  # the first process alone has any
        if extends:
            _refuse_averaged(trainer, run)
        _refuse_other_images(built, run, digests)
        if trainer.is_global_zero:
            run.error_file.unlink(missing_ok=True)
            run.metrics_file.unlink(missing_ok=True)
            _describe(config, run, built, digests)
        else:
            logging.getLogger().setLevel(logging.ERROR)
        recorded = {key: value for key, value in _resolved(config).items() if key not in ("run_dir", "resume")}
        with recording(loggers, run, recorded, steps_taken):
            processes.start(trainer, run.folder)
            metrics = _fit_and_test(built, run, checkpoint)
    if not trainer.is_global_zero or is_trial(trainer):
        return Outcome(metrics, built.model)
    stopwatch = built.stopwatch
    metrics |= {
        "latent_dim": built.model.latent_dim,
        "seed": config.seed,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in built.model.parameters()),
        "seconds_training": round(stopwatch.seconds, 3),
        "images_per_second": round(stopwatch.images / stopwatch.seconds, 1),
    }
    write_json(run.metrics_file, metrics)
    finish(loggers, _hyperparameters(config, swept), metrics, trainer.global_step)
    _tell_of_result(metrics)
    log.info("saved      %s\n", short_path(run.folder))
    return Outcome(metrics, built.model)


def _refuse_averaged(trainer: Trainer, run: Run) -> None:
    """Raises `UsageError` if a run would be extended whose weights Lightning has replaced by their average."""
    if any(isinstance(callback, StochasticWeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise UsageError(
            f"resume=true: {short_path(run.folder)} cannot be extended, because StochasticWeightAveraging ends with "
            "averaged weights. Train in another folder; runs of callbacks=[default,ema] can be extended"
        )


def _refuse_other_images(built: Built, run: Run, digests: Mapping[str, Any]) -> None:
    """Raises `UsageError` if a run would be resumed with images of other digests, before anything of it is replaced."""
    data = built.data
    if not digests or not isinstance(data, ImageDataModule):
        return
    data.trainer = built.trainer  # the splits depend on it
    data.prepare_data()
    data.setup()
    if changed := data.changed(digests):
        raise UsageError(
            f"data: the {changed} images of {data.name} are not those that {short_path(run.folder)} was trained and "
            "tested on. Restore them to resume this run, or train in another folder"
        )


def _fit_and_test(built: Built, run: Run, checkpoint: Path | None) -> dict[str, Any]:
    model, data, trainer, stopwatch = built
    keepers = [callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)]  # type: ignore[attr-defined]
    with (
        above_bars(shown=trainer.progress_bar_callback is not None),
        Interruption(trainer, keeps_state=bool(keepers)) as interruption,
    ):
        for keeper in keepers:
            keeper.interruption = interruption
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        refuse_divergence(model)
        _tell_of_stopping(trainer)
        best = _take_best(built, run)
        trainer.test(model, datamodule=data, verbose=False, weights_only=True)
    trainer.strategy.barrier()
    metrics = stopwatch.validated | best | {name: value.item() for name, value in trainer.callback_metrics.items()}
    refuse_values(metrics)
    if is_trial(trainer):
        log.info("dry run    one batch of training, validation and test (trainer.fast_dev_run); nothing is saved\n")
    return metrics


def _tell_of_stopping(trainer: Trainer) -> None:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        # Its state may also come from before the run was extended.
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch + 1 >= trainer.current_epoch:
            reason = (callback.stopping_reason_message or "").removesuffix(" Signaling Trainer to stop.")
            if reason:
                log.info("stopped    after epoch %d of %s: %s", trainer.current_epoch, trainer.max_epochs, reason)


def _tell_of_result(metrics: Mapping[str, Any]) -> None:
    for stage, title in [("val", "validated"), ("test", "tested")]:
        if f"{stage}/loss" in metrics and f"{stage}/elbo" not in metrics:
            found = (metrics[f"{stage}/{name}"] for name in ("loss", "distortion"))
            log.info("%-9s  loss %.2f, distortion %.2f", title, *found)
        if f"{stage}/elbo" in metrics:
            terms = (metrics[f"{stage}/{name}"] for name in ("elbo", "distortion", "rate"))
            of = f", of the best checkpoint, step {metrics['best_step']}" if "best_step" in metrics else ""
            log.info("%-9s  elbo %.2f = -(distortion %.2f + rate %.2f) nats per image%s", title, *terms, of)
    log.info("trained    %.1f s, %.0f images/s", metrics["seconds_training"], metrics["images_per_second"])


def _take_best(built: Built, run: Run) -> dict[str, float]:
    """Loads the best weights, if a callback chose some by a metric, into the model and saves them with the run.

    Returns:
        `best_step`, the number of steps after which these were the weights, and the validation metrics of them.
    """
    model, _, trainer, stopwatch = built
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_path:
            file = Path(callback.best_model_path)
            found = torch.load(file, map_location="cpu", weights_only=True)
            model.load_state_dict(found["state_dict"])
            if trainer.is_global_zero and file.resolve() != run.best_file.resolve():
                write_file(run.best_file, file.read_bytes())
            step, score = found["global_step"], float(callback.best_model_score)  # type: ignore[arg-type]
            log.info("best       %s %.2f, after step %d of %d", callback.monitor, score, step, trainer.global_step)
            # A checkpoint of weights alone has no callbacks.
            validated = found.get("callbacks", {}).get(stopwatch.state_key, {}).get("validated", {})
            return {**validated, callback.monitor: score, "best_step": step}
    if trainer.is_global_zero:
        run.best_file.unlink(missing_ok=True)
    return {}


def _describe(config: DictConfig, run: Run, built: Built, digests: Mapping[str, Any]) -> None:
    """Logs the setup of the run and saves it in the run's folder."""
    model, _, trainer, _ = built
    device = trainer.strategy.root_device
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    write_file(run.config_file, OmegaConf.to_yaml(_resolved(config)).encode())
    forget_paths(run.hydra_file)
    found = environment(device=str(device), hardware=hardware, threads=torch.get_num_threads(), seed=config.seed)
    write_json(run.environment_file, found | ({"data": digests} if digests else {}))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    log.info("run        %s", short_path(run.folder))
    log.info(
        "model      %s, latent dimension %d, objective %s, %s parameters",
        config.choices.get("model"),
        model.latent_dim,
        config.choices.get("model/objective"),
        f"{parameters:,}",
    )
    if trainer.precision == "bf16-mixed" and device.type == "cpu" and (speed := bfloat16_speed()) < 1:
        log.info(
            "precision  bfloat16 has %.1f times the speed of 32 bits on this CPU: trainer.precision=32-true is faster",
            speed,
        )
    devices = f"{trainer.world_size} × {device.type}" if trainer.world_size > 1 else str(device)
    log.info("device     %s, precision %s, seed %d", devices, trainer.precision, config.seed)


def _resolved(config: DictConfig) -> dict[str, Any]:
    """The configuration without interpolations and the place of the run's folder."""
    return OmegaConf.to_container(OmegaConf.merge(config, {"run_dir": "."}), resolve=True)  # type: ignore[return-value]


def _placed(node: Any, within: str = "") -> Any:
    """The inverse of `_resolved`: what a recorded configuration writes to the run's folder follows `run_dir` again."""
    if isinstance(node, dict):
        return {key: _placed(child, within or str(key)) for key, child in node.items()}
    if isinstance(node, list):
        return [_placed(child, within) for child in node]
    recorded = within in ("callbacks", "logger", "trainer") and isinstance(node, str) and node.split("/")[0] == "."
    return f"${{run_dir}}{node[1:]}" if recorded else node


def _hyperparameters(config: DictConfig, swept: Sequence[str]) -> dict[str, Any]:
    """The hyperparameters for loggers: the swept options, or for a single run the most important ones."""
    keys = list(swept) or ["data", "model", "model/objective", "model.latent_dim", "seed"]
    names, choices = short_names(keys), config.choices
    found = {key: choices[key] if key in choices else OmegaConf.select(config, key) for key in keys}
    # Hydra notes no choice of a group of which several can be chosen.
    return {names[key]: " ".join(value) if isinstance(value, DictConfig) else value for key, value in found.items()}


def _modules(config: DictConfig) -> list[str]:
    """The modules named in the configuration of a run trained here, which are therefore trusted."""
    found = set()
    nodes = [config.model, config.data, config.callbacks]
    while nodes:
        node = nodes.pop()
        if isinstance(node, DictConfig):
            nodes += [node[name] for name in node]
            if "_target_" in node:
                found.add(str(node["_target_"]).rpartition(".")[0])
    return sorted(found)
