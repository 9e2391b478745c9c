"""What became of the calls: the one place where outcomes are counted.

Guarantee: the counts add up at any moment, and reading them waits for nothing.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

OUTCOMES = ("delivered", "unchanged", "superseded", "dropped", "rejected")


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the calls of this process, since construction or fork.

    ``accepted`` is ``delivered + unchanged + superseded + dropped + rejected + pending``.

    Attributes:
        accepted: Calls whose flags are mirrored.
        delivered: Mixpanel accepted the update.
        unchanged: Mixpanel has these flags already, or they are on their way.
        superseded: A later call for the same profile took the place of this one.
        dropped: Given up because a bound was reached or the client was closed.
        rejected: Refused by Mixpanel, or impossible to send.
        pending: On their way.
        skipped: Calls that are never mirrored, and are not in the sum: transient, without a usable identifier,
            without flags, or after ``close``.
        requests: HTTP requests to Mixpanel.
        retries: Those of them that followed a failed one.
    """

    accepted: int = 0
    delivered: int = 0
    unchanged: int = 0
    superseded: int = 0
    dropped: int = 0
    rejected: int = 0
    pending: int = 0
    skipped: int = 0
    requests: int = 0
    retries: int = 0


class Ledger:
    """Counts what became of the calls of one process.

    Any thread may count and read, also a signal handler that interrupts either.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held for a few instructions only
        self._counts = dict.fromkeys((*OUTCOMES, "skipped", "requests", "retries"), 0)
        self._stored: Mapping[str, int] = MappingProxyType({})

    def count(self, outcome: str, number: int = 1) -> None:
        """Count an outcome of calls, a request or a retry."""
        with self._lock:
            self._counts[outcome] += number

    def set_stored(self, counts: Mapping[str, int]) -> None:
        """Take over what a shared store knows of the messages that this process has put into it.

        ``counts`` has each of ``OUTCOMES``, and ``pending``: the messages that wait there.
        """
        self._stored = counts

    def counts(self) -> dict[str, int]:
        """Return the count of each outcome, of skipped calls, requests and retries."""
        with self._lock:
            counts, stored = self._counts.copy(), self._stored
        for outcome in OUTCOMES:
            counts[outcome] += stored.get(outcome, 0)
        return counts


def stats_of(counts: Mapping[str, int], submitted: int, kept: int | None = None) -> Stats:
    """Put counts together with the number of calls, which must be read after them.

    ``kept`` is given when the client has given up: how many pending messages a store keeps. The others were
    dropped.
    """
    accepted = submitted - counts["skipped"]
    unsettled = accepted - sum(counts[outcome] for outcome in OUTCOMES)
    pending = unsettled if kept is None else min(unsettled, kept)
    dropped = counts["dropped"] + unsettled - pending
    return Stats(accepted=accepted, pending=pending, **{**counts, "dropped": dropped})
