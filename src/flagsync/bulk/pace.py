"""Keeps below a number of profiles a second."""

import time
from collections.abc import Callable
from threading import TIMEOUT_MAX

from flagsync._clock import monotonic

# Mixpanel takes 2 GB of JSON a minute (https://developer.mixpanel.com/reference/import-events), which is about 11,000
# profiles a second of 3 KB.
PROFILES_PER_SECOND = 10_000.0


class Pace:
    """Lets a thread wait, so that it does no more than so many things a second.

    Args:
        rate: How many; None: as many as it can.
        sleep: How to wait some seconds.
    """

    def __init__(self, rate: float | None, sleep: Callable[[float], object] = time.sleep) -> None:
        self._rate, self._sleep, self._next_at = rate, sleep, monotonic()

    def wait(self, count: int) -> None:
        """Wait until so many more may be done. What was not done earlier is not made up for."""
        if self._rate is None:
            return
        now = monotonic()
        if self._next_at > now:
            self._sleep(min(self._next_at - now, TIMEOUT_MAX))
        self._next_at = max(self._next_at, now) + count / self._rate
