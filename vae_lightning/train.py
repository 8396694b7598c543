"""Training from the command line: compose → build everything → fit → test → metrics.json.

`vae-train` and `python -m vae_lightning.train`. Until a job is to be trained this module imports neither torch nor
Lightning, so that help, `--cfg` and mistakes in the command are answered at once.
"""

import gc
import logging
import math
import os
import platform
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .config.messages import exit_code, explain, explain_failure
from .config.schema import check, check_calls, register
from .config.sweeps import Folders
from .engine.processes import Processes, is_connection_loss, is_member, join_jobs, no_more_jobs
from .engine.signals import Interrupted
from .errors import UsageError
from .runs import Run, forget_paths, short_names, short_path, sweep_runs, swept_keys, write_file, write_json
from .runs.resuming import check_same, steps_taken_at

if TYPE_CHECKING:
    from pytorch_lightning import Trainer
    from pytorch_lightning.loggers import Logger

    from .callbacks import Stopwatch
    from .data.datamodule import ImageDataModule
    from .vae import VAE

__all__ = ["JobError", "build", "main", "train"]

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
# In a checkout the configuration stands beside the package, in a wheel inside it.
CONFIGURATION = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())

WANTS_TRACEBACK = "VAE_WANTS_TRACEBACK"

register()


class JobError(RuntimeError):
    """A job of a sweep failed, and has said why; the other jobs go on.

    Args:
        run: name of the job's run.
        code: what the process is to exit with.
    """

    def __init__(self, run: str, code: int) -> None:
        super().__init__(run, code)
        self.code = code


def main() -> None:
    """Runs one training or a sweep, as the command line says; exits with 0, 1 for a failure, 2 for wrong usage."""
    if is_member():
        sys.exit(_take_part())
    try:
        sys.exit(_lead())
    finally:
        no_more_jobs()


def _quiet_about_files(otherwise: Callable[..., Any]) -> Callable[..., Any]:
    return lambda thread: None if isinstance(thread.exc_value, OSError) else otherwise(thread)


def _take_part() -> int:
    """Trains what the first process of the training says, and leaves files and console to it."""
    logging.basicConfig(level=logging.ERROR, format="%(message)s")
    try:
        join_jobs(lambda run: train(OmegaConf.create(run.config), run))
    except Exception as error:
        if not is_connection_loss(error):
            print(explain(error), file=sys.stderr)
        return 1
    return 0


def _lead() -> int:
    # Hydra would print its own account of an error and exit with 1; with this variable it raises. What the user has
    # set it to is kept for the jobs, which may run in other processes.
    os.environ.setdefault(WANTS_TRACEBACK, os.environ.get("HYDRA_FULL_ERROR", "0"))
    os.environ["HYDRA_FULL_ERROR"] = "1"
    # A log that cannot be written is no reason for tracebacks; nor are events, which a thread writes.
    logging.raiseExceptions = False
    threading.excepthook = _quiet_about_files(threading.excepthook)
    # Hydra takes flags before overrides only; this one is easily thought of last.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("--multirun", "-m"))
    signal.signal(signal.SIGTERM, _terminate)
    code = 0
    try:
        _job()
    except JobError as error:
        code = error.code
    except (Interrupted, KeyboardInterrupt) as stop:
        print(_how_to_go_on(), file=sys.stderr)
        return stop.code if isinstance(stop, Interrupted) else 130  # type: ignore[return-value]
    except Exception as error:
        # No job has been started, or it would have said what is wrong itself.
        code = max(exit_code(error), 1 if isinstance(error, OSError) else 2)
        if os.environ[WANTS_TRACEBACK] == "1":
            traceback.print_exc()
        elif isinstance(error, OSError) and code == 1:
            hint = "Name another folder with hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER for a sweep."
            print(f"cannot write the output folder: {explain(error)}\n{hint}", file=sys.stderr)
        else:
            print(explain(error), file=sys.stderr)
    if Folders.sweep is not None:
        with suppress(OSError):
            forget_paths(Folders.sweep / "multirun.yaml")
    if Folders.sweep is not None and sweep_runs(Folders.sweep):
        from .report import compare

        code = max(code, 1 if compare(Folders.sweep) else 0)
    return code


def _terminate(number: int, frame: Any) -> None:
    """What SIGTERM does while this process is not training, as when a sweep's jobs run elsewhere."""
    raise Interrupted(128 + number)


def _how_to_go_on() -> str:
    if Folders.sweep or Folders.run:
        option = "hydra.sweep.dir" if Folders.sweep else "hydra.run.dir"
        own = ("hydra.sweep.dir=", "hydra.run.dir=", "resume=")
        arguments = [argument for argument in sys.argv[1:] if not argument.startswith(own)]
        folder = short_path(Folders.sweep or Folders.run or Path())
        return f"To go on:  vae-train {shlex.join([*arguments, f'{option}={folder}', 'resume=true'])}"
    return "interrupted"


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="train")
def _job(config: DictConfig) -> float:
    run = Run(Path(HydraConfig.get().runtime.output_dir))
    sweeps = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        check(config)
        # In a sweep only a job that has been queued again finds its folder in use.
        config.resume = config.resume or (sweeps and run.config_file.is_file())
        metrics = train(config, run)
        return metrics.get("val/elbo", metrics["test/elbo"])
    except Interrupted:
        kept = "its state is kept" if run.checkpoint_file.is_file() else "it had no checkpoint yet"
        log.error("interrupted %s: %s", run.name, kept)
        raise
    except Exception as error:
        code, message = exit_code(error), explain_failure(error, short_path(run.folder), config.data.get("batch_size"))
        log.error("%s", f"{run.name}: {message}" if sweeps else message)
        with suppress(OSError):  # the disk may be full
            run.error_file.write_text(f"{traceback.format_exc()}\n{message.splitlines()[0]}\n")
            if code == 1 and not type(error).__module__.startswith(__package__):
                log.error("The traceback is in %s", short_path(run.error_file))
        if code == 1 and run.checkpoint_file.is_file():
            log.error("The last good state is in %s; resume=true goes on from there", short_path(run.checkpoint_file))
        if os.environ.get(WANTS_TRACEBACK) == "1":
            traceback.print_exc()
    finally:
        _free_memory()
    # Outside the handler: an error that Hydra keeps must not keep the frames of the job with its model and data. And
    # SystemExit is not an Exception, so that Hydra adds nothing to what has been said.
    raise JobError(run.name, code) if sweeps else SystemExit(code)


def _free_memory() -> None:
    """Leaves the next job of a sweep the memory of this one, on the device as well."""
    if torch := sys.modules.get("torch"):
        gc.collect()
        torch.compiler.reset()  # what is compiled counts towards a limit, beyond which nothing is
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def train(config: DictConfig, run: Run) -> dict[str, Any]:
    """Trains and tests one model and leaves a finished run on disk.

    Args:
        config: as composed from `conf/train.yaml`.
        run: where to.

    Returns:
        The content of `metrics.json`: the test metrics, per image in nats, and `epochs`, `steps`, `parameters`,
        `seconds_training`, `images_per_second`, `latent_dim` and `seed`.

    Raises:
        UsageError: if an option is wrong.
        DivergenceError: if a weight or a test metric is not finite.
    """
    from pytorch_lightning import seed_everything

    config.run_dir = str(run.folder)
    if config.resume and run.config_file.is_file():
        check_same(config, run)
        if run.finished:
            log.info("finished   %s already\n", short_path(run.folder))
            return dict(run.metrics)
    _quiet()
    seed_everything(config.seed, verbose=False)
    os.environ.pop("PL_GLOBAL_SEED")  # with several processes, Lightning would seed once more, after the model is built
    checkpoint = run.checkpoint_file if config.resume and run.checkpoint_file.is_file() else None
    with Processes(config.trainer) as processes:
        model, data, trainer, stopwatch = build(config, steps_taken_at(checkpoint))
        if trainer.is_global_zero:
            run.error_file.unlink(missing_ok=True)
            _describe(config, run, model, trainer)
        else:
            logging.getLogger().setLevel(logging.ERROR)
        processes.start(trainer, run)
        metrics = _fit_and_test(model, data, trainer, stopwatch, checkpoint)
    if not trainer.is_global_zero:
        return metrics
    metrics |= {
        "latent_dim": model.latent_dim,
        "seed": config.seed,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds_training": round(stopwatch.seconds, 3),
        "images_per_second": round(stopwatch.images / stopwatch.seconds, 1),
    }
    from .report.picture import keep_curves

    hyperparameters = _hyperparameters(config)
    for logger in trainer.loggers:
        outcome = {name: value for name, value in metrics.items() if name not in hyperparameters}
        logger.log_hyperparams(hyperparameters, outcome)
        logger.finalize("success")
    keep_curves(run)
    write_json(run.metrics_file, metrics)
    for stage, title in [("val", "validated"), ("test", "tested")]:
        if f"{stage}/elbo" in metrics:
            terms = (metrics[f"{stage}/{name}"] for name in ("elbo", "distortion", "rate"))
            log.info("%-9s  elbo %.2f = -(distortion %.2f + rate %.2f) nats per image", title, *terms)
    log.info("trained    %.1f s, %.0f images/s", stopwatch.seconds, metrics["images_per_second"])
    log.info("saved      %s\n", short_path(run.folder))
    return metrics


def _fit_and_test(
    model: "VAE", data: "ImageDataModule", trainer: "Trainer", stopwatch: "Stopwatch", checkpoint: Path | None
) -> dict[str, Any]:
    from tqdm.contrib.logging import logging_redirect_tqdm

    from .callbacks.checkpoints import stoppable
    from .vae import DivergenceError

    # On a terminal, log lines go above the progress bar instead of through it.
    with logging_redirect_tqdm() if trainer.progress_bar_callback else nullcontext(), stoppable(trainer):
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if not all(parameter.isfinite().all() for parameter in model.parameters()):
            raise DivergenceError("weights: not finite; a lower model.optimizer.lr may help")
        trainer.test(model, datamodule=data, verbose=False, weights_only=True)
    trainer.strategy.barrier()
    metrics = stopwatch.validated | {name: value.item() for name, value in trainer.callback_metrics.items()}
    if diverged := [name for name, value in metrics.items() if not math.isfinite(value)]:
        raise DivergenceError(f"{', '.join(diverged)}: not finite; a lower model.optimizer.lr may help")
    return metrics


def build(config: DictConfig, steps_taken: int = 0) -> "tuple[VAE, ImageDataModule, Trainer, Stopwatch]":
    """Makes every object of the run, so that all mistakes in the configuration are found before data is read.

    Args:
        config: as composed from `conf/train.yaml`, with `run_dir`.
        steps_taken: optimizer steps after which the training goes on; what was logged later is forgotten.
    """
    import torch
    from hydra.utils import instantiate
    from pytorch_lightning.callbacks import Checkpoint
    from pytorch_lightning.plugins import TorchSyncBatchNorm
    from pytorch_lightning.plugins.environments import SLURMEnvironment

    from .callbacks import Stopwatch
    from .callbacks.checkpoints import AtomicCheckpointIO
    from .engine.shards import SharedBatchNorms

    check_calls(config)
    accelerator = config.trainer.accelerator
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UsageError(f"trainer.accelerator={accelerator}: there is no GPU here; use trainer=cpu or trainer=default")
    model = instantiate(config.model, _convert_="all")
    try:
        model.configure_optimizers()  # it is made again when the training starts
    except (TypeError, ValueError) as error:
        raise UsageError(f"model.optimizer: {error}") from error
    data = instantiate(config.data, _convert_="all")
    on_gpus = accelerator != "cpu" and torch.cuda.is_available()
    plugins: list[Any] = [AtomicCheckpointIO(), TorchSyncBatchNorm() if on_gpus else SharedBatchNorms()]
    if SLURMEnvironment.detect():  # submitit queues jobs again
        plugins.append(SLURMEnvironment(auto_requeue=False))
    stopwatch = Stopwatch()
    callbacks = [stopwatch, *instantiate(config.callbacks, _convert_="all").values()]
    trainer = instantiate(
        config.trainer,
        _convert_="all",
        logger=[_make_logger(node, steps_taken) for node in config.logger.values()],
        plugins=plugins,
        use_distributed_sampler=False,  # the data module shares batches out itself
        callbacks=callbacks,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        default_root_dir=config.run_dir,
        enable_progress_bar=bool(config.trainer.enable_progress_bar and sys.stdout.isatty()),
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    _share_calls(model, data, trainer)
    return model, data, trainer, stopwatch


def _make_logger(node: DictConfig, steps_taken: int) -> "Logger":
    from hydra.utils import instantiate

    if steps_taken and str(node["_target_"]).endswith(".TensorBoardLogger"):
        return instantiate(node, _convert_="all", purge_step=steps_taken + 1)
    return instantiate(node, _convert_="all")


def _share_calls(model: "VAE", data: "ImageDataModule", trainer: "Trainer") -> None:
    """Settles how many steps a call of Lightning's loop takes: as many as nothing that counts batches could notice."""
    if trainer.gradient_clip_val or trainer.accumulate_grad_batches != 1 or trainer.world_size > 1:
        model.steps_per_call, model.cuda_graph = 1, False
    if not hasattr(data, "steps_per_call"):  # a data module from elsewhere
        model.steps_per_call = 1
    counts = [getattr(callback, "every_n_batches", 0) for callback in trainer.callbacks]  # type: ignore[attr-defined]
    limit = trainer.limit_train_batches
    counts += [limit if isinstance(limit, int) else 0, max(trainer.max_steps, 0)]
    data.steps_per_call = model.steps_per_call = math.gcd(model.steps_per_call, *counts)
    if isinstance(limit, int):
        trainer.limit_train_batches = limit // model.steps_per_call


def _describe(config: DictConfig, run: Run, model: "VAE", trainer: "Trainer") -> None:
    """Says what is about to run, and keeps it with the run."""
    import torch

    device = trainer.strategy.root_device
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    resolved = OmegaConf.to_yaml(OmegaConf.merge(config, {"run_dir": "."}), resolve=True)
    write_file(run.config_file, resolved.encode())
    forget_paths(run.hydra_file)
    packages = ["torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "numpy", "vae-lightning"]
    environment = {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
        "platform": platform.platform(),
        "device": str(device),
        "hardware": hardware,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seed": config.seed,
    }
    write_json(run.environment_file, environment)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    choices = HydraConfig.get().runtime.choices
    log.info("run        %s", short_path(run.folder))
    log.info(
        "model      %s, latent dimension %d, objective %s, %s parameters",
        choices.get("model"),
        model.latent_dim,
        choices.get("model/objective"),
        f"{parameters:,}",
    )
    devices = f"{trainer.world_size} × {device.type}" if trainer.world_size > 1 else str(device)
    log.info("device     %s, precision %s, seed %d", devices, trainer.precision, config.seed)


def _hyperparameters(config: DictConfig) -> dict[str, Any]:
    """What TensorBoard's HParams tab lists: what tells the runs of a sweep apart; of a single run, the usual few."""
    hydra_config = HydraConfig.get()
    keys = swept_keys(Path(hydra_config.sweep.dir)) if hydra_config.mode == RunMode.MULTIRUN else []
    keys = keys or ["data", "model", "model/objective", "model.latent_dim", "seed"]
    names = short_names(keys)
    choices = hydra_config.runtime.choices
    return {names[key]: choices[key] if key in choices else OmegaConf.select(config, key) for key in keys}


def _quiet() -> None:
    """Silences what libraries say that nobody here can act on."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    logging.getLogger("tensorboard").setLevel(logging.WARNING)
    for text in [
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*isinstance.treespec.*",
        ".*Total length of `list`.*",
        ".*your dataloader is not resumable.*",
        ".*will save all extracted features in buffer.*",
        ".*Grad strides do not match bucket view strides.*",
        ".*sync_dist=True.*when logging on epoch level.*",
    ]:
        warnings.filterwarnings("ignore", text)


if __name__ == "__main__":
    # Not this module's own: what is sent to other processes must be found there by its name.
    from vae_lightning.train import main as installed

    installed()
