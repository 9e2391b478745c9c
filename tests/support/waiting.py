"""Waits for what another process does."""

import time
from collections.abc import Callable

SECONDS, PAUSE_SECONDS = 30.0, 0.01


def wait_until(holds: Callable[[], object], state: Callable[[], object] = str) -> None:
    """Look again and again until something holds; if it takes too long, fail and show the state."""
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline, state()
        time.sleep(PAUSE_SECONDS)
