"""Programs in processes of their own: how they ended, and what they have sent."""

import os
import subprocess
import sys
from collections import Counter
from typing import IO, NamedTuple

from flagsync.testing import MixpanelServer

HANG_SECONDS = 60.0  # longer than any program may take


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: Its exit code.
        output: The lines that it printed.
        errors: What it wrote to its standard error.
    """

    code: int
    output: list[str]
    errors: str


def end(process: subprocess.Popen[str], seconds: float = HANG_SECONDS - 5) -> Ended:
    """Close its input and wait for the end of a process and, by the pipes they inherit, of its children."""
    output, errors = process.communicate(timeout=seconds)
    return Ended(process.returncode, output.splitlines(), errors)


def close_in_children(pipe: IO[bytes] | None) -> None:
    """Close a pipe in each child that this process forks, so that its end is closed when this process says so."""
    assert pipe is not None
    os.register_at_fork(after_in_child=pipe.close)


def sent(mixpanel: MixpanelServer) -> Counter[str]:
    """Return how often each profile was sent, whatever became of it."""
    return Counter(update["$distinct_id"] for request in mixpanel.requests for update in request.updates)


def names(prefix: str, count: int) -> list[str]:
    """Return identifiers such as ``user_0``."""
    return [f"{prefix}_{number}" for number in range(count)]


def can_be_first() -> bool:
    """Whether a process may have a namespace in which a child of it is the first process: on Linux, as root."""
    return sys.platform == "linux" and os.geteuid() == 0
