"""Decides when the messages in a backend are sent.

Guarantee: none waits longer than ``flush_interval_seconds`` for others, even if newer ones of the same keys take the
place of all that wait, again and again.
"""

from math import inf

from flagsync._clock import monotonic
from flagsync._outbox.backend import Status
from flagsync._outbox.contract import Limits


class Gathering:
    """Lets messages gather until they fill a request, or have waited long enough.

    Args:
        limits: Bounds of one request.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self._since = limits, inf
        self._full_batch = limits.max_batch_messages  # as many as fill a request

    def is_full(self, pending: int) -> bool:
        """Return whether enough wait for a full request."""
        return pending >= self._full_batch

    def due_at(self, status: Status) -> float:
        """Return when to send: ``time.monotonic()``; ``inf`` if nothing waits."""
        if not status.pending:
            self._since = inf
            return inf
        self._since = min(self._since, monotonic() - status.oldest_seconds)
        return -inf if self.is_full(status.pending) else self._since + self._limits.flush_interval_seconds

    def note_claim(self, count: int, *, has_more: bool) -> None:
        """Note how many messages were claimed: they fill a request if more wait."""
        self._since = inf
        self._full_batch = count if has_more else self._limits.max_batch_messages
