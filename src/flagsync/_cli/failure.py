"""What ends a command with a sentence on stderr in place of a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

WRONG, MISUSED = 1, 2  # exit codes


class Failure(Exception):  # noqa: N818 - it is no defect of the program
    """A command cannot go on. Its text says what came, what is accepted and what to do.

    Args:
        text: A sentence without secrets.
        code: The exit code.
    """

    def __init__(self, text: str, code: int = MISUSED) -> None:
        super().__init__(text)
        self.code = code


@contextmanager
def failing_if(what: str, code: int) -> Iterator[None]:
    """Turn an error of the system into a ``Failure`` that says what is impossible, and why."""
    try:
        yield
    except OSError as error:
        raise Failure(f"{what} ({error.strerror or error})", code) from error


@contextmanager
def failing_on(*kinds: type[Exception], code: int = MISUSED) -> Iterator[None]:
    """Turn exceptions whose text is meant for people into a ``Failure``."""
    try:
        yield
    except kinds as error:
        raise Failure(f"{error}" or type(error).__name__, code) from error
