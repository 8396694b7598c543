"""Interruptions."""

__all__ = ["Interrupted"]


class Interrupted(SystemExit):
    """The training was asked to stop, and has stopped after a whole step with its state kept.

    It is no `Exception`: it ends a sweep as well as a job.
    """
