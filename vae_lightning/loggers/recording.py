"""What a run asks of its loggers beyond Lightning's interface, by type of logger: pictures, results, resuming.

Each function of a single logger has a default that suits any of Lightning's. Other types can register their own:

>>> from pytorch_lightning.loggers import CometLogger
>>> @add_picture.register
... def _(logger: CometLogger, name, file, step):
...     logger.experiment.log_image(str(file), name=name, step=step)
"""

import csv
import json
import logging
import os
import pkgutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import singledispatch, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakSet

from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger
from tensorboard.compat.proto.summary_pb2 import Summary

from ..errors import UsageError, first_line
from ..runs import Run, write_json
from ..runs.options import options

__all__ = ["add_picture", "finish", "forgiven", "needed_to_make", "recording"]

log = logging.getLogger(__name__)

# Packages that are not installed by default; each is an extra of the same name.
PACKAGES: dict[type, str] = {MLFlowLogger: "mlflow", WandbLogger: "wandb"}
# A run reports to nobody, and prints nothing of its own, unless the user wants it.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "WANDB_ERROR_REPORTING": "false",
    "WANDB_SILENT": "true",
}


def needed_to_make(name: str, node: Mapping[str, Any], run: Run, steps_taken: int) -> dict[str, Any]:
    """Returns options for a logger that its configuration leaves open: the run's name, and how its record continues.

    Args:
        name: of the logger in the configuration.
        node: its configuration.
        run: the run, new or resumed.
        steps_taken: optimizer steps before the checkpoint from which the run is resumed.

    Raises:
        UsageError: if the logger's package is not installed.
    """
    kind = pkgutil.resolve_name(str(node["_target_"]))
    if not isinstance(kind, type):
        return {}
    for parent, package in PACKAGES.items():
        if issubclass(kind, parent) and find_spec(package) is None:
            raise UsageError(f'logger.{name}: {package} is not installed; pip install "vae-lightning[{package}]"')
    for variable, value in SETTINGS.items():
        os.environ.setdefault(variable, value)
    named = {option: run.folder.resolve().name for option in _naming.dispatch(kind)(kind) if node.get(option) is None}
    return named | _to_continue.dispatch(kind)(kind, steps_taken, _identities(run).get(name))


@singledispatch
def _naming(kind: object) -> tuple[str, ...]:
    """The options of a logger's class that take a name of the run."""
    return ()


@_naming.register(MLFlowLogger)
def _(kind: object) -> tuple[str, ...]:
    return ("run_name",)


@_naming.register(WandbLogger)
def _(kind: object) -> tuple[str, ...]:
    return ("name",)


@singledispatch
def _to_continue(kind: object, steps_taken: int, identity: str | None) -> dict[str, Any]:
    """The options that continue a logger's record. Chosen by its class, because they are needed to make it."""
    return {}


@_to_continue.register(TensorBoardLogger)
def _(kind: object, steps_taken: int, identity: str | None) -> dict[str, Any]:
    return {"purge_step": steps_taken + 1} if steps_taken else {}


@_to_continue.register(MLFlowLogger)
def _(kind: object, steps_taken: int, identity: str | None) -> dict[str, Any]:
    return {"run_id": identity} if identity else {}


@_to_continue.register(WandbLogger)
def _(kind: object, steps_taken: int, identity: str | None) -> dict[str, Any]:
    return {"id": identity} if identity else {}


def _identities(run: Run) -> dict[str, str]:
    try:
        found = json.loads(run.loggers_file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def recording(loggers: Mapping[str, Logger], run: Run, config: Mapping[str, Any], steps_taken: int) -> Iterator[None]:
    """A context in which a run is trained and tested, with its loggers open; if it fails, they are closed.

    They are given the configuration, and the run's folder keeps what is needed to continue their records. An error in
    a logger is a warning.

    Args:
        loggers: by name.
        run: the run, new or resumed.
        config: its resolved configuration.
        steps_taken: optimizer steps before the checkpoint from which the run is resumed.

    Raises:
        UsageError: if a logger cannot be opened.
    """
    with ExitStack() as stack:
        identities = {}
        for name, logger in loggers.items():
            try:
                identity = _open(logger, steps_taken)
            except Exception as error:  # loggers are third-party code and may need a network
                raise UsageError(f"logger.{name}: cannot be used: {first_line(error)}") from error
            stack.enter_context(_closed_after_a_failure(logger))
            if identity:
                identities[name] = identity
        if identities:
            write_json(run.loggers_file, identities)
        for logger in loggers.values():
            with forgiven(logger, "the configuration"):
                _configure(logger, config)
            stack.enter_context(_lightning_is_forgiven(logger))
        yield


@contextmanager
def _closed_after_a_failure(logger: Logger) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with forgiven(logger, "the end of the run"):
            _close(logger, "failed")
        raise


@singledispatch
def _open(logger: Logger, steps_taken: int) -> str | None:
    """Opens a logger for a run that may be resumed, and returns the identity of its record, if it has one."""
    return None


@_open.register
def _(logger: CSVLogger, steps_taken: int) -> None:
    rows = []
    if steps_taken and (file := Path(logger.log_dir, "metrics.csv")).is_file():
        with file.open(newline="") as opened:
            rows = [{key: value for key, value in row.items() if key and value} for row in csv.DictReader(opened)]
    with warnings.catch_warnings(action="ignore"):  # the file is begun anew
        writer = logger.experiment
    # What follows the checkpoint comes again; so do tests.
    writer.metrics = [
        row
        for row in rows
        if str(row.get("step")).isdecimal()
        and int(row["step"]) <= steps_taken
        and not any(key.startswith("test/") for key in row)
    ]
    logger.save()


@_open.register
def _(logger: MLFlowLogger, steps_taken: int) -> str | None:
    try:
        identity = logger.run_id
    except Exception:  # another process may just have created the experiment
        identity = logger.run_id
    logger.experiment.update_run(identity, status="RUNNING")
    return identity


@_open.register
def _(logger: WandbLogger, steps_taken: int) -> str | None:
    import wandb

    wandb.setup()  # else it has not read WANDB_SILENT when it warns of an option that Lightning passes
    return logger.experiment.id


@singledispatch
def _configure(logger: Logger, config: Mapping[str, Any]) -> None:
    """Gives a logger the whole configuration."""
    logger.log_hyperparams(dict(config))


@_configure.register
def _(logger: TensorBoardLogger, config: Mapping[str, Any]) -> None:
    """Nothing: TensorBoard's table has a column per option, so it gets the swept ones, with the result."""


@_configure.register
def _(logger: MLFlowLogger, config: Mapping[str, Any]) -> None:
    known = logger.experiment.get_run(logger.run_id).data.params  # which MLflow does not change
    logger.log_hyperparams({key: value for key, value in options(config).items() if key not in known})


@singledispatch
def add_picture(logger: Logger, name: str, file: Path, step: int) -> None:
    """Adds a picture to a logger, by default to none: it is in the run's `figures/` in any case.

    Args:
        logger: of any type.
        name: the picture's name; pictures of several steps share one.
        file: the picture, a PNG file; it is encoded once for all.
        step: the optimizer step it belongs to.
    """


@add_picture.register
def _(logger: TensorBoardLogger, name: str, file: Path, step: int) -> None:
    with Image.open(file) as picture:
        width, height, channels = *picture.size, len(picture.getbands())
    image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=file.read_bytes())
    logger.experiment.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), step)


@add_picture.register
def _(logger: MLFlowLogger, name: str, file: Path, step: int) -> None:
    with Image.open(file) as picture:
        logger.experiment.log_image(logger.run_id, picture, key=name, step=step)


@add_picture.register
def _(logger: WandbLogger, name: str, file: Path, step: int) -> None:
    logger.log_image(name, [str(file)], step)


def finish(loggers: Mapping[str, Logger], hyperparameters: dict[str, Any], metrics: dict[str, Any], step: int) -> None:
    """Gives every logger the result of a run and closes it; errors in a logger do not affect the run.

    Args:
        loggers: by name.
        hyperparameters: the swept or most important options.
        metrics: the content of `metrics.json`.
        step: optimizer steps taken.
    """
    for logger in loggers.values():
        _FAILED.discard(logger)  # it may work again
        with forgiven(logger, "the result"):
            _conclude(logger, hyperparameters, metrics, step)
            logger.save()
        with forgiven(logger, "the end of the run"):
            _close(logger, "success")


@singledispatch
def _conclude(logger: Logger, hyperparameters: dict[str, Any], metrics: dict[str, Any], step: int) -> None:
    """Gives a logger the result of a run."""
    logger.log_metrics(metrics, step)


@_conclude.register
def _(logger: TensorBoardLogger, hyperparameters: dict[str, Any], metrics: dict[str, Any], step: int) -> None:
    outcome = {name: value for name, value in metrics.items() if name not in hyperparameters}
    logger.log_hyperparams(hyperparameters, outcome, step)  # at step 0, TensorBoard would drop what came before


@_conclude.register
def _(logger: WandbLogger, hyperparameters: dict[str, Any], metrics: dict[str, Any], step: int) -> None:
    logger.experiment.summary.update(metrics)


@singledispatch
def _close(logger: Logger, status: str) -> None:
    """Closes a logger's record, with the status `success` or `failed`."""
    logger.finalize(status)


@_close.register
def _(logger: WandbLogger, status: str) -> None:
    logger.finalize(status)
    logger.experiment.finish(exit_code=int(status != "success"))  # else the next run of this process continues it


_FAILED: WeakSet[Logger] = WeakSet()


@contextmanager
def forgiven(logger: Logger, what: str) -> Iterator[None]:
    """A context in which a logger's first error is a warning that it could not record something."""
    try:
        yield
    except Exception as error:  # loggers are third-party code and may need a network
        if logger not in _FAILED:
            log.warning("%s could not record %s: %s", type(logger).__name__, what, first_line(error))
        _FAILED.add(logger)


@contextmanager
def _lightning_is_forgiven(logger: Logger) -> Iterator[None]:
    """A context in which Lightning's calls of a logger raise nothing, and after an error do nothing."""

    def forgiving(call: Callable[..., None], what: str) -> Callable[..., None]:
        @wraps(call)
        def attempt(*arguments: Any, **options: Any) -> None:
            if logger not in _FAILED:
                with forgiven(logger, what):
                    call(*arguments, **options)

        return attempt

    calls = {"log_metrics": "metrics", "save": "metrics", "finalize": "the end of a stage"}
    for name, what in calls.items():
        setattr(logger, name, forgiving(getattr(logger, name), what))
    try:
        yield
    finally:
        for name in calls:
            delattr(logger, name)
