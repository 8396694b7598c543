"""The errors that every subpackage raises for a user's mistake, and what libraries' errors say."""

__all__ = ["DataError", "UsageError", "first_line", "lines_of"]


class UsageError(ValueError):
    """The command or the configuration is wrong; the message names the option, its value and what is allowed."""


class DataError(RuntimeError):
    """The data is missing, damaged or of the wrong form; the message says what to do about it."""


def lines_of(error: BaseException) -> list[str]:
    """Returns the lines of an error's message that are not empty, or the name of its class where there are none.

    >>> lines_of(ValueError("\\n  size: must be 3 \\n\\n not 4")), lines_of(EOFError())
    (['size: must be 3', 'not 4'], ['EOFError'])
    """
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]


def first_line(error: BaseException) -> str:
    """Returns the first of `lines_of` an error."""
    return lines_of(error)[0]
