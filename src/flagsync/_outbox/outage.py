"""Decides when a backend is used, and when memory takes its place.

Guarantee: an outage is reported once when it begins and once when it is over. A store that fails is tried again soon,
and then less and less often, also if it works for a moment in between: what works may be only a part of it.
"""

from collections.abc import Callable
from math import inf
from typing import TypeVar

from flagsync._clock import monotonic
from flagsync._outbox.options import Staging
from flagsync._report import Outage, Reporter
from flagsync.exceptions import DeliveryError

T = TypeVar("T")


class BackendOutage:
    """An outage of one backend.

    Args:
        staging: When to try again after a failure.
        report: Where the outage is reported.
        pending: Returns how many messages wait in memory.

    Attributes:
        outage: What is reported.
    """

    def __init__(self, staging: Staging, report: Reporter, pending: Callable[[], int]) -> None:
        self._staging, self.outage, self._pending = staging, Outage(report), pending
        self._began_at = self._retry_at = 0.0
        self._ended_at = -inf
        self._pause = staging.retry_seconds  # the next one
        self._is_closed = False

    @property
    def is_active(self) -> bool:
        """Whether the backend has failed and does not work again yet."""
        return self.outage.is_active

    def may_use_backend(self) -> bool:
        """Return whether the backend works, or it is time to try it again; False once it is closed."""
        return not self._is_closed and (not self.is_active or monotonic() >= self._retry_at)

    def is_long(self) -> bool:
        """Return whether the outage has lasted longer than the longest pause."""
        return monotonic() - self._began_at > self._staging.max_retry_seconds

    def has_lasted(self, seconds: float) -> bool:
        """Return whether the outage began at least so long ago."""
        return monotonic() - self._began_at >= seconds

    def attempt(self, use: Callable[[], T]) -> T | None:
        """Use the backend; return None during an outage, if one begins, or once it is closed."""
        if self.is_active or self._is_closed:
            return None
        try:
            return use()
        except Exception as error:  # noqa: BLE001 - memory replaces the backend, whatever the error
            self.begin(error)
            return None

    def close(self) -> None:
        """Use the backend no more: a thread that ends late would open it again, and nobody would close it."""
        self._is_closed = True

    def begin(self, error: Exception) -> None:
        """Note a failure."""
        if not self.is_active:
            self._began_at = monotonic()
            if self._began_at - self._ended_at >= self._pause:
                self._pause = self._staging.retry_seconds
        self._retry_at = monotonic() + self._pause
        self._pause = min(2 * self._pause, self._staging.max_retry_seconds)
        reason = f"The outbox cannot be used, and memory takes its place ({error})"
        self.outage.begin(DeliveryError(reason, self._pending(), will_retry=True))

    def end(self) -> None:
        """Note that the backend works."""
        if self.is_active:
            self._ended_at = monotonic()
        self.outage.end("The outbox is in use again")
