"""A search by Optuna: one that goes on where it was interrupted, and its runs in the order of their success."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, open_dict

from ..runs import Run, read_hydra

__all__ = ["SWEEPER", "best_first", "go_on", "is_search"]

SWEEPER = "OptunaSweeper"


def is_search(sweep: Path) -> bool:
    """Whether a sweep's values were chosen by Optuna, in view of earlier results."""
    sweeper = read_hydra(sweep / "multirun.yaml").get("sweeper")
    return isinstance(sweeper, dict) and SWEEPER in str(sweeper.get("_target_"))


def best_first(runs: Sequence[Run]) -> list[Run]:
    """Finished runs by what a search maximises: the elbo of validation images, of test images where there are none."""

    def success(run: Run) -> float:
        return float(run.metrics.get("val/elbo", run.metrics["test/elbo"])) if run.finished else float("-inf")

    return sorted(runs, key=success, reverse=True)


def go_on(sweeper: DictConfig) -> None:
    """Makes a sweeper finish a stored study: what is missing is tried, interrupted trials first, with their values.

    The sampler's seed moves on as well; it would else suggest once more what has been tried.

    Args:
        sweeper: the node `hydra.sweeper`; changed.
    """
    if not (sweeper.storage and sweeper.study_name):
        return
    import optuna
    from optuna.trial import TrialState

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    direction = str(getattr(sweeper.direction, "name", sweeper.direction))
    study = optuna.create_study(
        study_name=sweeper.study_name, storage=sweeper.storage, direction=direction, load_if_exists=True
    )
    done = 0
    for trial in study.get_trials(deepcopy=False):
        if trial.state == TrialState.RUNNING:  # nobody runs it: this process is the only one that starts trials
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        elif trial.state == TrialState.COMPLETE:
            done += 1
    with open_dict(sweeper):
        sweeper.n_trials = max(1, sweeper.n_trials - done)
        if sweeper.sampler.get("seed") is not None:
            sweeper.sampler.seed += done
