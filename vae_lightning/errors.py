"""The error that every subpackage raises for a user's mistake."""

__all__ = ["UsageError"]


class UsageError(ValueError):
    """The command or the configuration is wrong; the message names the option, its value and what is allowed."""
