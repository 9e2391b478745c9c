"""Counts the outcomes of calls and, separately, of exposures. Nothing else counts outcomes.

Guarantee: the counts add up at any moment, and reading them waits for no I/O.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from flagsync._clock import monotonic

OUTCOMES = ("delivered", "unchanged", "superseded", "dropped", "rejected")


@dataclass(frozen=True, slots=True)
class ExposureStats:
    """What became of the exposures of this process, since construction or fork.

    ``accepted`` is ``delivered + unchanged + dropped + rejected + pending``. No exposure supersedes another one.

    Attributes:
        accepted: Exposures that are recorded.
        delivered: Mixpanel accepted the event.
        unchanged: Mixpanel already has the event of this user and variant, or it is about to be sent.
        dropped: Given up because a bound was reached or the client was closed.
        rejected: Refused by Mixpanel, or impossible to send.
        pending: Not settled yet.
        skipped: Exposures that are never recorded, and are not in the sum: of users outside the sample, without a
            name, without a usable identifier, or after ``close``. Each reason is logged once.
    """

    accepted: int = 0
    delivered: int = 0
    unchanged: int = 0
    dropped: int = 0
    rejected: int = 0
    pending: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the calls of this process, since construction or fork.

    ``accepted`` is ``delivered + unchanged + superseded + dropped + rejected + pending``.

    Attributes:
        accepted: Calls whose flags are mirrored.
        delivered: Mixpanel accepted the update.
        unchanged: Mixpanel has these flags already, or they are about to be sent.
        superseded: A later call for the same profile took the place of this one.
        dropped: Given up because a bound was reached or the client was closed.
        rejected: Refused by Mixpanel, or impossible to send.
        pending: Not settled yet.
        skipped: Calls that are never mirrored, and are not in the sum: transient, without a usable identifier,
            without flags, or after ``close``.
        requests: HTTP requests to Mixpanel.
        retries: Requests that followed a failed one.
        oldest_seconds: How long the oldest pending message has waited; 0.0 if there is none. With an outbox, the oldest
            of all messages in it, whichever process put them there, as this process saw it last.
        last_success_at: When Mixpanel last accepted a request of this process: ``time.time()``; None if it never did.
        last_error: Why Mixpanel did not accept the last batch of this process, or a part of it; None if it accepted
            all of it. It holds no token, identifier or payload.
        exposures: What became of the exposures. No count of calls includes them.

    Two are equal if their counts are: ``==`` ignores ``oldest_seconds``, ``last_success_at`` and ``last_error``.
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
    oldest_seconds: float = field(default=0.0, compare=False)
    last_success_at: float | None = field(default=None, compare=False)
    last_error: str | None = field(default=None, compare=False)
    exposures: ExposureStats = field(default_factory=ExposureStats)


class Counts:
    """Counts things by name. Any thread may count and read, also a signal handler that interrupts either."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # held for a few instructions only
        self._counts: dict[str, int] = {}

    def count(self, name: str) -> None:
        """Count one more."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + 1

    def counts(self) -> dict[str, int]:
        """Return the count of each name that was counted."""
        with self._lock:
            return self._counts.copy()


class Ledger:
    """Counts what became of the calls of one process.

    Any thread may count and read, also a signal handler that interrupts either.

    Attributes:
        failures: Counts the requests that were not accepted, by their ``error_type``.
        last_success_at: When a request was last accepted: ``time.time()``.
        last_error: What was wrong with the last batch; None if all of it was accepted.
    """

    def __init__(self) -> None:
        self.failures = Counts()
        self.last_success_at: float | None = None
        self.last_error: str | None = None
        self._lock = threading.RLock()  # held for a few instructions only
        self._counts = dict.fromkeys((*OUTCOMES, "skipped", "requests", "retries"), 0)
        self._events = dict.fromkeys((*OUTCOMES, "skipped"), 0)
        self._stored: Mapping[str, int] = MappingProxyType({})
        self._stored_events: Mapping[str, int] = MappingProxyType({})

    def count(self, outcome: str, number: int = 1, *, is_event: bool = False) -> None:
        """Count an outcome of calls or of exposures, a request or a retry."""
        with self._lock:
            (self._events if is_event else self._counts)[outcome] += number

    def set_stored(self, counts: Mapping[str, int], events: Mapping[str, int] = MappingProxyType({})) -> None:
        """Take over what a shared store knows of the messages that this process has put into it.

        Each has the ``OUTCOMES``, and ``pending``: the messages that wait there. ``counts`` do not include ``events``.
        """
        self._stored, self._stored_events = counts, events

    def counts(self) -> dict[str, int]:
        """Return the count of each outcome of calls, of skipped calls, of requests and of retries."""
        with self._lock:
            counts, stored = self._counts.copy(), self._stored
        return _added(counts, stored)

    def events(self) -> dict[str, int]:
        """Return the count of each outcome of exposures, and of skipped exposures."""
        with self._lock:
            counts, stored = self._events.copy(), self._stored_events
        return _added(counts, stored)


def age(since: float) -> float:
    """Return the seconds since a time of ``time.monotonic()``; 0.0 for ``inf``, which stands for never."""
    return max(0.0, monotonic() - since)


def stats_of(
    counts: Mapping[str, int],
    submitted: int,
    kept: int | None = None,
    exposures: ExposureStats = ExposureStats(),
    *,
    oldest_seconds: float = 0.0,
    last_success_at: float | None = None,
    last_error: str | None = None,
) -> Stats:
    """Put counts together with the number of calls, which must be read after them.

    ``kept`` is given when the client has given up: how many pending messages a store keeps. The others were
    dropped.
    """
    return Stats(
        **_settled(counts, submitted, kept),
        oldest_seconds=oldest_seconds,
        last_success_at=last_success_at,
        last_error=last_error,
        exposures=exposures,
    )


def exposure_stats_of(counts: Mapping[str, int], submitted: int, kept: int | None = None) -> ExposureStats:
    """Put counts together with the number of exposures, as ``stats_of`` does."""
    settled = _settled(counts, submitted, kept)
    del settled["superseded"]  # no event takes the place of another one
    return ExposureStats(**settled)


def _added(counts: dict[str, int], stored: Mapping[str, int]) -> dict[str, int]:
    for outcome in OUTCOMES:
        counts[outcome] += stored.get(outcome, 0)
    return counts


def _settled(counts: Mapping[str, int], submitted: int, kept: int | None) -> dict[str, int]:
    """Return all counts, which add up."""
    accepted = submitted - counts["skipped"]
    unsettled = accepted - sum(counts[outcome] for outcome in OUTCOMES)
    pending = unsettled if kept is None else min(unsettled, kept)
    dropped = counts["dropped"] + unsettled - pending
    return {**counts, "accepted": accepted, "pending": pending, "dropped": dropped}
