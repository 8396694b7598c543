"""Resuming an Optuna search."""

from omegaconf import DictConfig, open_dict

__all__ = ["go_on"]


def go_on(sweeper: DictConfig) -> None:
    """Makes a sweeper complete a stored study: it runs only the missing trials, interrupted ones first.

    The sampler's seed advances as well, so that it does not repeat its suggestions.

    Args:
        sweeper: the node `hydra.sweeper`, modified in place.
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
        if trial.state == TrialState.RUNNING:  # left by an interrupted process: trials run in one process at a time
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        elif trial.state == TrialState.COMPLETE:
            done += 1
    with open_dict(sweeper):
        sweeper.n_trials = max(0, sweeper.n_trials - done)
        if sweeper.sampler.get("seed") is not None:
            sweeper.sampler.seed += done
