"""Tells how old the environment document of a Flagsmith client is, as far as it can be seen from outside.

Guarantee: does no I/O. Boundary: the client does not say when it refreshed its document, but each refresh makes a new
one (flagsmith 6.3). So a refresh counts from when somebody looked first after it.
"""

from math import inf

from flagsmith import Flagsmith

from flagsync._clock import monotonic
from flagsync._messages import refresher
from flagsync._thresholds import Thresholds

NO_THREAD = (
    "The thread that refreshes Flagsmith's environment document does not run in this process: build Flagsmith and "
    "FlagSync after the fork"
)
NO_DOCUMENT = (
    "Flagsmith's environment document has not arrived, and local evaluation falls back to its API: look for the "
    "cause in the log of the Flagsmith client"
)
STALE_DOCUMENT = (
    "Flagsmith's environment document was last refreshed {:.0f} seconds ago: look for the cause in the log of the "
    "Flagsmith client"
)


class Refresh:
    """Looks at the document of one client.

    Args:
        flagsmith: The client.
        thresholds: When its document is stale.
    """

    def __init__(self, flagsmith: Flagsmith, thresholds: Thresholds) -> None:
        self._flagsmith, self._thresholds = flagsmith, thresholds
        self._seen: tuple[object, float] = None, 0.0
        self.age_seconds()

    def age_seconds(self) -> float | None:
        """Return how long ago the document was refreshed; None without local evaluation, or without a document."""
        document = getattr(self._flagsmith, "_evaluation_context", None)
        if document is None or not self._is_local():
            return None
        # A small part, which is new with each document, so that an old document is not kept.
        part = document.get("environment", document) if type(document) is dict else document
        seen, since = self._seen
        if part is not seen:
            since = monotonic()
            self._seen = part, since
        return monotonic() - since

    def trouble(self) -> str | None:
        """Return why the flags may be out of date; None if they are not, as far as it is known."""
        if not self._is_local():
            return None
        thread, seconds = refresher(self._flagsmith), self.age_seconds()
        if thread is not None and not thread.is_alive():
            return NO_THREAD
        if seconds is None:
            return NO_DOCUMENT
        interval = getattr(
            thread, "refresh_interval_seconds", inf
        )  # a stream refreshes when something has changed
        is_stale = seconds > max(self._thresholds.stale_seconds, self._thresholds.missing_refreshes * interval)
        return STALE_DOCUMENT.format(seconds) if is_stale else None

    def _is_local(self) -> bool:
        return bool(getattr(self._flagsmith, "enable_local_evaluation", False))
