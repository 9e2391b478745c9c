"""Waits until rows are settled, in a thread of its own."""

from math import inf
from threading import Thread
from typing import Protocol

from flagsync.exceptions import DeliveryError


class Flushing(Protocol):
    """What delivers."""

    @property
    def is_closed(self) -> bool:
        """Whether it accepts no more calls."""

    def flush(self, deadline: float, *, unless_misconfigured: bool) -> bool:
        """Wait until what was submitted before the call is settled; False at the deadline, or if misconfigured."""

    def obstacle(self) -> DeliveryError:
        """Return why what is pending is not delivered."""


class Settling(Thread):
    """Waits until what was submitted before is settled.

    Attributes:
        is_settled: Whether it is.
    """

    def __init__(self, delivery: Flushing) -> None:
        super().__init__(name="flagsync-backfill", daemon=True)
        self._delivery, self.is_settled = delivery, False
        self.start()

    def run(self) -> None:
        """Wait, but not while Mixpanel accepts nothing until a person corrects the configuration."""
        self.is_settled = self._delivery.flush(inf, unless_misconfigured=True)

    def wait(self) -> None:
        """Wait for the end of the thread.

        Raises:
            DeliveryError: It is not settled.
        """
        self.join()
        if not self.is_settled or self._delivery.is_closed:
            raise self._delivery.obstacle()
