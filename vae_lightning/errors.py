"""The errors that every subpackage raises for a user's mistake."""

__all__ = ["DataError", "UsageError"]


class UsageError(ValueError):
    """The command or the configuration is wrong; the message names the option, its value and what is allowed."""


class DataError(RuntimeError):
    """The data is missing, damaged or of the wrong form; the message says what to do about it."""
