"""Decides when messages in memory are saved.

Guarantee: a save that cannot be made at once is made soon. Boundary: the outbox saves.
"""

from math import inf

from flagsync._clock import monotonic
from flagsync._outbox.options import Staging

POSTPONED = 4  # saves that may be postponed while the backend is in use


class Schedule:
    """Counts the messages put since the last save, and limits how long they and the backend may wait.

    Args:
        staging: How messages get into the backend.
        max_pending: How many messages may wait in memory.

    Attributes:
        deadline: No operation of the backend waits beyond this time of ``time.monotonic()``.
    """

    def __init__(self, staging: Staging, max_pending: float) -> None:
        self._staging, self._max_pending = staging, max_pending
        self._unsaved, self._saved_at = 0, monotonic()
        self.deadline = inf

    def is_due_after_put(self) -> bool:
        """Count a message; return whether it is time to save."""
        self._unsaved += 1
        many = min(self._staging.save_messages, self._max_pending)
        return self._unsaved >= many or monotonic() - self._saved_at > self._staging.save_seconds

    def is_overdue(self) -> bool:
        """Return whether so many messages wait that the encoder must wait for the backend."""
        return self._unsaved >= min(POSTPONED * self._staging.save_messages, self._max_pending)

    def is_late(self) -> bool:
        """Return whether the last save was long ago."""
        return monotonic() - self._saved_at > POSTPONED * self._staging.save_seconds

    def note_save(self) -> None:
        """Note that a save begins."""
        self._unsaved, self._saved_at = 0, monotonic()

    def until(self, lease_seconds: float) -> float:
        """Return when the last request must have ended of a process that acquires a lease now; 0.0 is for ever."""
        return monotonic() + (lease_seconds or inf) - self._staging.grace_seconds

    def busy_deadline(self) -> float:
        """Return the time until which an operation may wait for another process."""
        return min(self.deadline, monotonic() + self._staging.busy_seconds)
