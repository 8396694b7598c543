"""A search by Optuna that continues where it was interrupted."""

from omegaconf import DictConfig, open_dict

__all__ = ["go_on"]


def go_on(sweeper: DictConfig) -> None:
    """Makes a sweeper complete a stored study: only the missing trials are run, interrupted ones first.

    The sampler's seed advances as well; otherwise it would suggest again what has been tried.

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
        if trial.state == TrialState.RUNNING:  # left by an interrupted process; only one at a time runs trials
            study.tell(trial.number, state=TrialState.FAIL)
            study.enqueue_trial(trial.params)
        elif trial.state == TrialState.COMPLETE:
            done += 1
    with open_dict(sweeper):
        sweeper.n_trials = max(1, sweeper.n_trials - done)
        if sweeper.sampler.get("seed") is not None:
            sweeper.sampler.seed += done
