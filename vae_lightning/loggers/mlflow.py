"""MLflow as the logger of many short steps, and of runs that are resumed."""

import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from pytorch_lightning.loggers import MLFlowLogger
from pytorch_lightning.utilities import rank_zero_only

if TYPE_CHECKING:
    from mlflow.entities import Metric

__all__ = ["MLflow"]

LONGEST = 1000  # metrics that MLflow takes at once
LOCK = Path(tempfile.gettempdir(), f"vae-lightning-mlflow-{getattr(os, 'getuid', int)()}.lock")


class MLflow(MLFlowLogger):
    """Lightning's logger for MLflow, which collects metrics and writes them every few seconds.

    A transaction takes tens of milliseconds, as long as an optimizer step or longer. MLflow cannot delete values, so
    steps that a resumed run repeats, with the same values, are not written again.

    Args:
        experiment_name: name of the experiment that the run belongs to.
        run_name: name of the run; in a training, null is that of its folder.
        tracking_uri: address of a server or database.
        artifact_location: where a new experiment keeps its pictures; null is `mlruns` for a database in a file.
        tags: further tags of the run.
        flush_secs: seconds between transactions; limits what a crash can lose.
        run_id: the run to continue, if there is still such a run.
    """

    def __init__(
        self,
        experiment_name: str,
        run_name: str | None = None,
        tracking_uri: str = "sqlite:///mlflow.db",
        artifact_location: str | None = None,
        tags: dict[str, Any] | None = None,
        flush_secs: float = 5.0,
        run_id: str | None = None,
    ) -> None:
        with FileLock(LOCK):  # the processes of a sweep would each make the tables of a new database
            if run_id is not None and not _exists(run_id, tracking_uri):
                run_id = None
            super().__init__(
                experiment_name,
                run_name or None,
                tracking_uri,
                tags,
                artifact_location=artifact_location,
                run_id=run_id,
            )
        self.flush_secs = flush_secs
        self._continues = run_id is not None
        self._reached: dict[str, int] = {}
        self._waiting: list[Metric] = []
        self._written = time.monotonic()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        step, now = step or 0, int(time.time() * 1000)
        for name, value in metrics.items():
            key = re.sub(r"[^\w/. -]", "_", name, flags=re.ASCII)
            if step > self._step_reached(key):
                self._waiting.append(Metric(key, float(value), now, step))
                self._reached[key] = step
        if time.monotonic() - self._written >= self.flush_secs:
            self.save()

    def _step_reached(self, key: str) -> int:
        """The last step with a value of a metric; -1 if there is none."""
        if key not in self._reached:
            known = self.experiment.get_metric_history(self.run_id, key) if self._continues else []
            self._reached[key] = max((value.step for value in known), default=-1)
        return self._reached[key]

    @rank_zero_only
    def save(self) -> None:
        while self._waiting:
            self.experiment.log_batch(self.run_id, metrics=self._waiting[:LONGEST])
            del self._waiting[:LONGEST]
        self._written = time.monotonic()

    @rank_zero_only
    def finalize(self, status: str = "success") -> None:
        self.save()
        super().finalize(status)


def _exists(run_id: str, tracking_uri: str) -> bool:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        return MlflowClient(tracking_uri).get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise
