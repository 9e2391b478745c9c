"""The voice of the background: the logger ``flagsync``, then ``on_error``.

Guarantee: nothing that listens can break the thread that speaks. What is given here to say holds no
token, no payload and no identifier.
"""

import logging
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from flagsync.exceptions import DeliveryError

REPEAT_SECONDS = 60.0
FULL = "max_pending is reached, the oldest make room"
log = logging.getLogger("flagsync")


class Reporter:
    """One record an incident, however often it happens."""

    def __init__(self, on_error: Callable[[DeliveryError], None] | None) -> None:
        self._on_error = on_error
        self._lock = threading.RLock()
        self._said: set[str] = set()
        self._lost: Counter[str] = Counter()
        self._notes: list[str | DeliveryError] = []
        self._next_losses = 0.0

    def error(self, error: DeliveryError) -> None:
        """Log the error, then tell the application."""
        mends_itself = error.will_retry and not error.misconfigured
        self.say(f"{error}", logging.WARNING if mends_itself else logging.ERROR)
        try:
            if self._on_error is not None:
                self._on_error(error)
        except KeyboardInterrupt:  # of the application's own thread, while it closes
            raise
        except BaseException as raised:  # noqa: BLE001 - such as pytest's own; the thread must go on
            self.say(f"on_error raised {type(raised).__name__}; it is ignored", logging.ERROR)

    def say(self, message: str, level: int = logging.WARNING) -> None:
        """Log a message."""
        with suppress(Exception, SystemExit):  # of a handler
            log.log(level, "%s", message)

    def once(self, message: str) -> None:
        """Warn the first time that something is said."""
        if message not in self._said:
            self._said.add(message)
            self.say(message)

    def lose(self, reason: str, count: int = 1) -> None:
        """Note updates that are lost, for ``losses``."""
        with self._lock:
            self._lost[reason] += count

    def note(self, note: str | DeliveryError) -> None:
        """Keep what is to be said for ``losses``: nobody is called while a lock is held."""
        self._notes.append(note)

    def losses(self, *, now: bool = False) -> None:
        """Report what was noted and lost: at once, then once a minute while it goes on."""
        while self._notes:
            note = self._notes.pop(0)
            self.error(note) if isinstance(note, DeliveryError) else self.say(note)
        if self._lost and (now or monotonic() >= self._next_losses):
            self._next_losses = monotonic() + REPEAT_SECONDS
            with self._lock:
                lost, self._lost = self._lost, Counter()
            for reason, count in lost.items():
                self.error(DeliveryError(reason, count, will_retry=False))
