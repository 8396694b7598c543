"""Training from the command line: compose → build everything → fit → test → metrics.json.

`vae-train` and `python -m vae_lightning.train`. Until a job is to be trained this module imports neither torch nor
Lightning, so that help, `--cfg` and mistakes in the command are answered at once.
"""

import logging
import os
import platform
import sys
import traceback
import warnings
from contextlib import nullcontext
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from .errors import UsageError, exit_code, explain
from .report.sweep import RememberSweep
from .runs import Run, short_names, sweep_runs, swept_keys, write_json
from .schema import check, check_calls, register

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from .callbacks import Stopwatch
    from .data.datamodule import ImageDataModule
    from .vae import VAE

__all__ = ["JobError", "main", "train"]

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent
# In a checkout the configuration stands beside the package, in a wheel inside it.
CONFIGURATION = next(folder for folder in (PACKAGE / "conf", PACKAGE.parent / "conf") if folder.is_dir())

register()


class JobError(RuntimeError):
    """A job of a sweep failed, and has said why; the other jobs go on."""


def main() -> None:
    """Runs one training or a sweep, as the command line says; exits with 0, 1 for a failure, 2 for wrong usage."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # Hydra would print its own account of an error and exit with 1; with this variable it raises.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    code = 0
    try:
        _job()
    except Exception as error:
        # Hydra hands on what a job raised; what else fails has kept Hydra from starting one.
        code = exit_code((error.__cause__ or error) if isinstance(error, JobError) else error)
        if wants_traceback:
            traceback.print_exc()
        elif isinstance(error, OSError) and exit_code(error) == 1:
            hint = "Name another folder with hydra.run.dir=FOLDER, or hydra.sweep.dir=FOLDER for a sweep."
            print(f"cannot write the output folder: {explain(error)}\n{hint}", file=sys.stderr)
        elif not isinstance(error, JobError):
            print(explain(error), file=sys.stderr)
    sweep = RememberSweep.folder
    if sweep is not None and sweep_runs(sweep):
        from .report import compare

        code = max(code, 1 if compare(sweep) else 0)
    sys.exit(code)


@hydra.main(version_base="1.3", config_path=str(CONFIGURATION), config_name="train")
def _job(config: DictConfig) -> float:
    run = Run(Path(HydraConfig.get().runtime.output_dir))
    try:
        check(config)
        return train(config, run)["test/elbo"]
    except Exception as error:
        message = explain(error)
        run.error_file.write_text(f"{traceback.format_exc()}\n{message.splitlines()[0]}\n")
        if exit_code(error) == 1 and not type(error).__module__.startswith(__package__):
            message += f"\nThe traceback is in {_short(run.error_file)}"
        log.error("%s", message)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise JobError(run.name) from error
        # Not an Exception, so Hydra adds nothing to what has been said.
        raise SystemExit(exit_code(error)) from error


def train(config: DictConfig, run: Run) -> dict[str, Any]:
    """Trains and tests one model and leaves a finished run on disk.

    Args:
        config: as composed from `conf/train.yaml`.
        run: where to; its folder must not hold a run already.

    Returns:
        The content of `metrics.json`: the test metrics, per image in nats, and `epochs`, `steps`, `parameters`,
        `seconds_training`, `images_per_second`, `latent_dim` and `seed`.

    Raises:
        UsageError: if the folder holds a run already, or an option is wrong.
    """
    import torch
    from pytorch_lightning import seed_everything
    from tqdm.contrib.logging import logging_redirect_tqdm

    if run.config_file.exists():
        raise UsageError(f"{run.folder} holds a run already: name another folder with hydra.run.dir=FOLDER")
    _quiet()
    config.run_dir = str(run.folder)
    seed_everything(config.seed, workers=True, verbose=False)
    model, data, trainer, stopwatch = _build(config)
    _describe(config, run, model, trainer)

    # On a terminal, log lines go above the progress bar instead of through it.
    with logging_redirect_tqdm() if trainer.progress_bar_callback else nullcontext():
        trainer.fit(model, datamodule=data)
        validated = {name: value.item() for name, value in trainer.callback_metrics.items() if name.startswith("val/")}
        trainer.test(model, datamodule=data, verbose=False)

    parameters = sum(parameter.numel() for parameter in model.parameters())
    tested = {name: value.item() for name, value in trainer.callback_metrics.items()}
    metrics = (
        validated
        | tested
        | {
            "latent_dim": model.latent_dim,
            "seed": config.seed,
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "parameters": parameters,
            "seconds_training": round(stopwatch.seconds, 3),
            "images_per_second": round(stopwatch.images / stopwatch.seconds, 1),
        }
    )
    hyperparameters = _hyperparameters(config)
    for logger in trainer.loggers:
        outcome = {name: value for name, value in metrics.items() if name not in hyperparameters}
        logger.log_hyperparams(hyperparameters, outcome)
        logger.finalize("success")
    write_json(run.metrics_file, metrics)
    log.info(
        "tested     elbo %.2f = -(distortion %.2f + rate %.2f) nats per image",
        *(metrics[f"test/{name}"] for name in ("elbo", "distortion", "rate")),
    )
    log.info("trained    %.1f s, %.0f images/s", stopwatch.seconds, metrics["images_per_second"])
    log.info("saved      %s\n", _short(run.folder))
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # for the next job of a sweep
    return metrics


def _build(config: DictConfig) -> "tuple[VAE, ImageDataModule, Trainer, Stopwatch]":
    """Makes every object of the run, so that all mistakes in the configuration are found before data is read."""
    import torch
    from hydra.utils import instantiate

    from .callbacks import Stopwatch

    check_calls(config)
    accelerator = config.trainer.accelerator
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise UsageError(f"trainer.accelerator={accelerator}: there is no GPU here; use trainer=cpu or trainer=default")
    model = instantiate(config.model, _convert_="all")
    data = instantiate(config.data, _convert_="all")
    stopwatch = Stopwatch()
    trainer = instantiate(
        config.trainer,
        _convert_="all",
        logger=list(instantiate(config.logger, _convert_="all").values()),
        callbacks=[stopwatch, *instantiate(config.callbacks, _convert_="all").values()],
        default_root_dir=config.run_dir,
        enable_progress_bar=bool(config.trainer.enable_progress_bar and sys.stdout.isatty()),
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    return model, data, trainer, stopwatch


def _describe(config: DictConfig, run: Run, model: "VAE", trainer: "Trainer") -> None:
    """Says what is about to run, and keeps it with the run."""
    import torch

    device = trainer.strategy.root_device
    hardware = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    )
    OmegaConf.save(OmegaConf.merge(config, {"run_dir": "."}), run.config_file, resolve=True)
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
    log.info("run        %s", _short(run.folder))
    log.info(
        "model      %s, latent dimension %d, objective %s, %s parameters",
        choices.get("model"),
        model.latent_dim,
        choices.get("model/objective"),
        f"{parameters:,}",
    )
    log.info("device     %s, precision %s, seed %d", device, trainer.precision, config.seed)


def _hyperparameters(config: DictConfig) -> dict[str, Any]:
    """What TensorBoard's HParams tab lists: what tells the runs of a sweep apart, and the usual few."""
    hydra_config = HydraConfig.get()
    keys = swept_keys(Path(hydra_config.sweep.dir)) if hydra_config.mode == RunMode.MULTIRUN else []
    keys = list(dict.fromkeys([*keys, "data", "model", "model/objective", "model.latent_dim", "seed"]))
    names = short_names(keys)
    choices = hydra_config.runtime.choices
    return {names[key]: choices[key] if key in choices else OmegaConf.select(config, key) for key in keys}


def _short(folder: Path) -> str:
    """A path as one would type it from here."""
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def _quiet() -> None:
    """Silences what Lightning says that nobody here can act on."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    for text in [
        ".*does not have many workers.*",
        ".*smaller than the logging interval.*",
        ".*isinstance.treespec.*",
        ".*Total length of `list`.*",
    ]:
        warnings.filterwarnings("ignore", text)


if __name__ == "__main__":
    main()
