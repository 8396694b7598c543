"""Measures a finished run again and keeps the result with the run."""

import logging
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import LambdaCallback, TQDMProgressBar
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from pytorch_lightning.utilities.seed import isolate_rng

from ..callbacks.label_check import refuse_other_classes
from ..console import above_bars, printing, quiet
from ..engine.devices import named_device
from ..engine.signals import Interrupted, Interruption
from ..engine.step_options import Options
from ..engine.strategies import OneDevice
from ..errors import UsageError, first_line
from ..progress import Progress
from ..runs import Run, short_path, write_json
from ..runs.loading import LoadedRun, LoadError, load_run
from ..runs.trust import trusted_modules
from .against import measure_against
from .naming import SIZES, evaluation_name, refuse_existing
from .settings import measurements_of, measuring_callbacks, other_data, own_data

__all__ = ["Evaluation", "evaluate"]

log = logging.getLogger(__name__)

# Lightning's options that can change what a test measures.
OF_TESTS = ("precision", "limit_test_batches", "deterministic", "benchmark", "inference_mode")


@dataclass(frozen=True)
class Evaluation:
    """A finished run, measured again.

    Attributes:
        run: the run.
        name: of the evaluation; its file is `<run>/evaluations/<name>.json`.
        metrics: as in `run.metrics`, by the same names: `test/…`, per image, in nats unless their names say otherwise.
        arrays: see `vae_lightning.callbacks.Measurements`.
        settings: how they were measured: `data`, `checkpoint`, `measurements`, versions and device.
    """

    run: Run
    name: str
    metrics: Mapping[str, float]
    arrays: Mapping[str, Sequence[float]]
    settings: Mapping[str, Any]

    @property
    def file(self) -> Path:
        return self.run.evaluation_file(self.name)


def evaluate(
    run: str | Path | LoadedRun,
    data: str | None = None,
    overrides: Sequence[str] = (),
    *,
    checkpoint: Literal["best", "last"] | None = None,
    bound_samples: int | None = None,
    bound_images: int | None = None,
    training_images: int | None = None,
    rate_images: int | None = None,
    probe_images: int | None = None,
    quality_images: int | None = None,
    factor_images: int | None = None,
    plane_points: int | None = None,
    tsne: bool | None = None,
    copy_images: int | None = None,
    half_samples: int | None = None,
    annealed_images: int | None = None,
    annealed_chains: int | None = None,
    annealed_steps: int | None = None,
    against: Sequence[str] = (),
    cache: str | None = None,
    name: str | None = None,
    force: bool = False,
    device: str | None = None,
    data_root: str | None = None,
    config_dir: str | Path | None = None,
    trust: str | Sequence[str] = (),
    progress: bool | None = None,
) -> Evaluation:
    """Measures a finished run again, and writes the result to `evaluations/` in the run's folder.

    With the settings of the training, the result is the run's own test metrics, on the same machine to the last digit.

    Args:
        run: its folder, or the result of `train` or `load_run`.
        data: a choice of the group `data` to test on instead of the run's own test images; they must have the shape
            of those. What is particular to the model (`scale`, `binarize`, `eval_batch_size`) stays that of the run.
        overrides: options of these data, such as `data.source.path=PICTURES`.
        checkpoint: `best` or `last`; by default the one that was tested, which is the best if the run kept it.
        bound_samples: see `vae_lightning.callbacks.Measurements`, as for all up to `annealed_steps`; by default that of
            the run.
        training_images: see there; by default 0 with other data, whose training images are not the run's.
        rate_images: see there.
        probe_images: see there.
        quality_images: see there.
        factor_images: see there.
        plane_points: see there.
        tsne: see there.
        copy_images: see there.
        half_samples: see there.
        annealed_images: see there.
        annealed_chains: see there.
        annealed_steps: see there.
        against: choices of the group `data`, whose test images are told from those of the run's (or of `data`) by
            their bounds, with `bound_samples`: see `vae_lightning.metrics.outliers`.
        cache: folder of the data sets' classifiers; see there.
        name: of the evaluation; by default made from what is asked for.
        force: whether to replace an evaluation of this name.
        device: name of the device, such as `cuda`; by default a GPU if the run was not restricted to the CPU and there
            is one, else the CPU.
        data_root: folder of the data sets, if not that of the run.
        config_dir: a folder with your own groups, for a choice of `data` in it.
        trust: see `load_run`.
        progress: whether to show progress bars; by default on a terminal and in a notebook.

    Raises:
        UsageError: if an option is invalid, or an evaluation of this name exists.
        LoadError: if the run cannot be loaded.
        DataError: if the data are missing or damaged.
        KeyboardInterrupt: if it was interrupted.

    >>> evaluate("multirun/…/latent_dim-2", bound_samples=5000).metrics["test/iw_bound"]  # doctest: +SKIP
    >>> evaluate("multirun/…/latent_dim-2", data="mnist").metrics["test/elbo"]  # doctest: +SKIP
    >>> evaluate("multirun/…/latent_dim-2", against=["mnist"]).metrics["test/auroc_bound_against_mnist"]
    ... # doctest: +SKIP
    """
    sizes = {option: value for option, value in locals().items() if option in SIZES and value is not None}
    if overrides and data is None:
        raise UsageError(f"{overrides[0]}: an option of other data, which need a choice: --data CHOICE")
    shown = progress if progress is not None else sys.stdout.isatty() or "ipykernel" in sys.modules
    folder = run.run.folder if isinstance(run, LoadedRun) else Path(run)
    name = evaluation_name(name, data, overrides, checkpoint, sizes, against)
    refuse_existing(Run(folder), name, force)
    trusted = (*trusted_modules(trust), *(run.trust if isinstance(run, LoadedRun) else ()))
    with printing(), quiet(), isolate_rng():
        torch.manual_seed(0)
        loaded = load_run(folder, trust=trusted, checkpoint=checkpoint)
        measurements = measurements_of(loaded, sizes if data is None else {"training_images": 0, **sizes}, cache)
        where = named_device(device or _usual_device(loaded))
        chosen = (
            own_data(loaded, data_root) if data is None else other_data(loaded, data, overrides, config_dir, data_root)
        )
        refuse_other_classes(loaded.model, chosen.module)
        others = [
            (choice, other_data(loaded, choice, (), config_dir, data_root, "--against").module) for choice in against
        ]
        file = loaded.run.evaluation_file(name)
        file.parent.mkdir(exist_ok=True)  # now, so that a folder that cannot be written is found before measuring
        used = checkpoint or ("best" if loaded.run.weights_file == loaded.run.best_file else "last")
        log.info("evaluating %s: %s checkpoint, test images of %s, on %s", loaded.name, used, chosen.module.name, where)
        started = time.perf_counter()
        callbacks = [measurements, *measuring_callbacks(loaded)]
        trainer = _trainer(loaded, where, callbacks, file.with_suffix(""), shown)
        with above_bars(shown), Interruption(trainer, keeps_state=False) as interruption:
            trainer.callbacks.append(LambdaCallback(on_test_start=lambda *_: interruption.hold()))  # type: ignore[attr-defined]
            try:
                trainer.test(loaded.model, datamodule=chosen.module, verbose=False)
            except Interrupted as stop:
                raise KeyboardInterrupt(f"{short_path(loaded.run.folder)}: interrupted; nothing was written") from stop
        found = {key: value.item() for key, value in trainer.callback_metrics.items()}
        if others:
            loaded.model.to(where)
            samples = max(1, int(measurements.sizes["bound_samples"]))
            found |= measure_against(loaded.model, chosen.module, others, samples, Progress(trainer, "measured"))
        metrics = _finite(found)
        settings = {
            "data": chosen.asked,
            "against": list(against),
            "checkpoint": used,
            "steps": loaded.metrics.get("steps"),
            "measurements": measurements.sizes,
            "device": str(where),
            "precision": trainer.precision,
            "vae-lightning": version("vae-lightning"),
            "torch": torch.__version__,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - started, 1),
        }
        # Not the pictures, which are for figures.
        arrays = {name: array.tolist() for name, array in measurements.arrays.items() if array.dim() == 1}
        write_json(file, {"metrics": metrics, "arrays": arrays, **settings})
        log.info("saved      %s\n", short_path(file))
    return Evaluation(loaded.run, name, metrics, arrays, settings)


def _usual_device(run: LoadedRun) -> str:
    """The name of the device on which the run would be tested here."""
    restricted = (run.config.get("trainer") or {}).get("accelerator") == "cpu"
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return "cpu" if restricted or found is None or found.type not in ("cuda", "mps") else found.type


def _trainer(run: LoadedRun, device: torch.device, callbacks: list[Any], folder: Path, progress: bool) -> Trainer:
    """A trainer that tests as the run's own did, without its loggers and without writing to the run's folder."""
    asked = run.config.get("trainer") or {}
    options = {key: asked[key] for key in OF_TESTS if asked.get(key) is not None}
    engine = run.config.get("engine") or {}
    strategy = OneDevice(device, Options(channels_last=bool(engine.get("channels_last"))))
    try:
        return Trainer(
            accelerator=device.type,
            strategy=strategy,
            callbacks=[*callbacks, *([TQDMProgressBar()] if progress else [])],
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=progress,
            use_distributed_sampler=False,
            **options,
        )
    except (TypeError, ValueError, MisconfigurationException) as error:
        raise LoadError(f"{run.run.config_file}: trainer: {first_line(error)}") from error


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are finite; the others, which images far from the training's can cause, are named in a line."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            log.warning("left out   %s is %s", name, value)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
