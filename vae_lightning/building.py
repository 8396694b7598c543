"""Builds every object of a run from its configuration, so that all errors in it are found before data is read."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder, Checkpoint, LearningRateFinder, ProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins import TorchSyncBatchNorm
from pytorch_lightning.plugins.environments import SLURMEnvironment
from pytorch_lightning.utilities import rank_zero_only

from .callbacks import Checkpoints, Curves, Stopwatch
from .callbacks.checkpoints import AtomicCheckpointIO
from .callbacks.digests import Digests
from .callbacks.label_check import LabelCheck, hidden_by, refuse_hidden_labels
from .config import check_calls, make, refuse_monitors
from .contracts import try_contracts
from .data.datamodule import ImageDataModule
from .engine.batch_norm import SharedBatchNorms
from .engine.random_state import RandomState
from .engine.schedules import left_to_callback, planned
from .engine.step_options import Options, fused, replayable, settle, spaced, take_trial_step
from .engine.strategies import OneDevice, SeveralDevices
from .errors import UsageError
from .loggers.recording import needed_to_make
from .runs import Run
from .runs.modules import few_modules
from .vae import VAE

__all__ = ["Built", "build"]

log = logging.getLogger(__name__)

# They would train with another value of an option than the run records.
REFUSED: dict[type[Callback], str] = {BatchSizeFinder: "data.batch_size", LearningRateFinder: "model.optimizer.lr"}


class Built(NamedTuple):
    """The objects of a run."""

    model: VAE
    data: ImageDataModule
    trainer: Trainer
    stopwatch: Stopwatch


def build(config: DictConfig, steps_taken: int = 0, progress: bool | None = None) -> Built:
    """Builds every object of the run, so that all errors in the configuration are found before data is read.

    Args:
        config: as composed from `conf/train.yaml`, with `run_dir`.
        steps_taken: optimizer steps after which the run is resumed; anything logged after them is discarded.
        progress: see `execute`.
    """
    check_calls(config)
    device = _device(config.trainer.accelerator)
    loggers = _make_loggers(config, steps_taken)
    data = make(config.data)
    if config.data.get("image_shape") is None and hasattr(data, "image_shape"):
        config.data.image_shape = list(data.image_shape)
    with few_modules():
        model = make(config.model)
    followers: list[Callback] = []
    if model.lr_scheduler:
        if "scheduler" not in model.lr_scheduler:
            raise UsageError("model.lr_scheduler also needs scheduler; schedule=cosine and others of the group set it")
        try:
            model.lr_scheduler, followers = left_to_callback(model.lr_scheduler)
        except ValueError as error:
            raise UsageError(str(error)) from error
    refuse_hidden_labels(model, data)
    if config.data.get("image_shape") is not None:
        try_contracts(model, config.data.image_shape, hidden_by(data))
    if not model.has_bound:
        advice = "codes without noise have no rate and no bound; monitor val/loss, with mode=min"
        refuse_monitors(config, lambda metric: metric.rpartition("/")[2] in ("elbo", "rate"), advice)
    stopwatch = Stopwatch()
    callbacks = [LabelCheck(), Digests(), stopwatch, Curves(), RandomState(), *followers]
    callbacks += _make_callbacks(config.callbacks)
    shown = bool(config.trainer.enable_progress_bar and (sys.stdout.isatty() if progress is None else progress))
    if not shown:  # Lightning refuses those that it is told not to show
        callbacks = [callback for callback in callbacks if not isinstance(callback, ProgressBar)]
    elif not any(isinstance(callback, ProgressBar) for callback in callbacks):
        callbacks.append(TQDMProgressBar())  # Lightning's default, Rich's, would swallow other bars and log lines
    # Checkpoints come last, so that they include what other callbacks decide at the end of an epoch.
    callbacks.sort(key=lambda callback: isinstance(callback, Checkpoints))
    options = Options(**config.engine)
    several = config.trainer.get("devices", 1) != 1 or config.trainer.get("strategy", "auto") == "ddp"
    strategy = SeveralDevices() if several else OneDevice(device, options)
    plugins: list[Any] = [AtomicCheckpointIO(), TorchSyncBatchNorm() if device.type == "cuda" else SharedBatchNorms()]
    if SLURMEnvironment.detect():  # submitit requeues jobs itself
        plugins.append(SLURMEnvironment(auto_requeue=False))
    trainer = make(
        config.trainer,
        accelerator=device.type,
        strategy=strategy,
        logger=loggers,
        plugins=plugins,
        use_distributed_sampler=False,  # the data module shards batches itself
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        default_root_dir=config.run_dir,
        enable_progress_bar=shown,
    )
    if not trainer.gradient_clip_val:  # Lightning refuses to clip before a fused step
        model.make_optimizer = fused(model.make_optimizer, device)
    if model.lr_scheduler:
        model.lr_scheduler = {**model.lr_scheduler, "scheduler": planned(model.lr_scheduler["scheduler"], trainer)}
    schedules, options = _check_optimizers(model, options)
    _settle(options, strategy, model, data, trainer, schedules)
    return Built(model, data, trainer, stopwatch)


def _make_callbacks(config: DictConfig) -> list[Callback]:
    for name in map(str, config):
        if not isinstance(config[name], DictConfig) or "_target_" not in config[name]:
            reason = "the chosen callbacks have none of that name" if config[name] else "is empty"
            raise UsageError(f"callbacks.{name}: {reason}; leave it out with '~callbacks.{name}'")
    callbacks = make(config)
    for name, callback in callbacks.items():
        for kind, option in REFUSED.items():
            if isinstance(callback, kind):
                advice = f"set {option}, or compare several with --multirun {option}=VALUE,VALUE"
                raise UsageError(f"callbacks.{name}: {kind.__name__} is not possible; {advice}")
    return list(callbacks.values())


def _check_optimizers(model: VAE, options: Options) -> tuple[list[dict[str, Any]], Options]:
    """Tries the optimizers and schedules, which training makes again; returns the schedules and possible options."""
    own = [player.optimizer for player in model.objective.players().values() if player.optimizer]
    node = "model.optimizer"
    try:
        for make_optimizer in [model.make_optimizer, *own]:
            node = "model.optimizer" if make_optimizer is model.make_optimizer else "model.objective.optimizer"
            optimizer = take_trial_step(make_optimizer)
            if options.cuda_graph and not replayable(optimizer):
                log.info("steps      not recorded, because %s counts them on the host", type(optimizer).__name__)
                options = replace(options, cuda_graph=False)
            if model.lr_scheduler:
                node = "model.lr_scheduler"
                model.lr_scheduler["scheduler"](optimizer)
        node = "model.optimizer"
        optimizers = model.configure_optimizers()
    except (RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{node}: {error}") from error
    return [optimizer["lr_scheduler"] for optimizer in optimizers if isinstance(optimizer, dict)], options


def _settle(
    options: Options,
    strategy: OneDevice | SeveralDevices,
    model: VAE,
    data: ImageDataModule,
    trainer: Trainer,
    schedules: list[dict[str, Any]],
) -> None:
    """Sets the number of steps per call of Lightning's loop, and rejects options that several optimizers exclude."""
    if len(model.minimised) > 1:
        terms = ", ".join(model.minimised)
        if isinstance(strategy, SeveralDevices):
            raise UsageError(
                f"trainer.devices: {terms} have separate optimizers, which need a single device; use trainer=default"
            )
        if trainer.accumulate_grad_batches != 1:
            raise UsageError(f"trainer.accumulate_grad_batches: must be 1, because {terms} have separate optimizers")
        if trainer.precision == "16-mixed":
            raise UsageError(
                f"trainer.precision=16-mixed: {terms} have separate optimizers, which need a gradient scaler each; "
                "use bf16-mixed"
            )
        if reason := next(filter(None, map(spaced, schedules)), ""):
            raise UsageError(f"model.lr_scheduler.{reason}: is not possible, because {terms} have separate optimizers")
    if isinstance(strategy, SeveralDevices):
        if options.compile:
            raise UsageError("engine.compile=true: needs a single device; use trainer=default or engine.compile=false")
        if options != Options():
            log.info("steps      without the options of engine, which need a single device")
        return
    strategy.options, reason = settle(options, trainer, schedules)
    if hasattr(data, "batches_per_call"):
        data.batches_per_call = strategy.options.steps_per_call
    elif strategy.options.steps_per_call > 1:
        strategy.options, reason = settle(Options(compile=options.compile), trainer, schedules)
    if reason and options.steps_per_call > 1:
        log.info("steps      one per call of Lightning's loop, because of %s", reason)


def _device(accelerator: str) -> torch.device:
    """The training device; with several devices, the first, which gives their type."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps", 0)
    if accelerator in ("auto", "cpu"):
        return torch.device("cpu")
    raise UsageError(f"trainer.accelerator={accelerator}: there is no GPU here; use trainer=cpu or trainer=default")


def _make_loggers(config: DictConfig, steps_taken: int) -> list[Logger]:
    first = getattr(rank_zero_only, "rank", 0) == 0
    if not first or config.trainer.get("fast_dev_run"):  # nothing of which is saved
        return []
    run = Run(Path(config.run_dir))
    nodes = {str(name): node for name, node in config.logger.items()}
    found = {name: needed_to_make(name, node, run, steps_taken) for name, node in nodes.items()}
    return [make(node, **found[name]) for name, node in nodes.items()]
