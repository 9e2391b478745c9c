"""The change log of a store, as a sender sees it.

Guarantee: a change leaves the log only when Flagsmith has accepted it or refused it alone. Nothing is claimed without
the lease, nor while an earlier request may still be under way. A store that fails is reported once, and used again
when it works. Boundary: how changes are sent.
"""

from collections.abc import Collection, Mapping
from hashlib import blake2b
from math import inf
from time import monotonic
from typing import Protocol

from flagsync._outbox.contract import Claim, Destination, Mark, Message
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger
from flagsync.cohorts.store import ChangeLog, LogState, TraitChange
from flagsync.cohorts.trait_writer.pace import Batch, Pace, Turn


class Requests(Protocol):
    """What a list must know of the requests that carry its changes."""

    @property
    def is_unsure(self) -> bool:
        """Whether the server may still be working on the last request."""

    @property
    def suspects(self) -> frozenset[bytes]:
        """Bodies of changes that are sent after all others."""

    @property
    def max_batch(self) -> int:
        """How many changes may come at once."""


class ChangeList:
    """The ``Delivery`` of a sender over the change log of a store; see ``flagsync._outbox.contract``.

    Args:
        log: Of the store.
        destination: Where the changes go.
        requests: Those that carry them.
        ledger: Where written and rejected changes are counted.
        report: Told of outages of the store, deferred.
        pace: When changes are written.
    """

    is_shared = True

    def __init__(
        self,
        log: ChangeLog,
        destination: Destination,
        requests: Requests,
        *,
        ledger: Ledger,
        report: Reporter,
        pace: Pace,
    ) -> None:
        self._log, self._destination, self._requests, self._pace = log, destination, requests, pace
        self._ledger, self._outage = ledger, Outage(report)
        self._batch = Batch(requests.max_batch, pace.min_batch)
        self._turn = Turn(pace.unsure_seconds)
        self._due_at = inf  # of what waits for others
        self._deadline = inf

    def set_deadline(self, deadline: float) -> None:
        """Look for no further departures after a time of ``time.monotonic()``."""
        self._deadline = deadline

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        """Put the first changes in flight, if this process may write."""
        if self._destination in resting:
            return Claim(next_at=resting[self._destination])
        try:
            claim = self._claim(urgent=urgent)
            if self._outage.is_active and not claim.messages:
                self._log.start_log()  # this changes nothing, but tells whether the store can be written to
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and the thread goes on
            self._begin_outage(error)
            return Claim(next_at=monotonic() + self._pace.interval_seconds)
        self._outage.end("The store of cohorts is in use again")
        return claim

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        """End the flight of changes, and take those off the log that are not sent again."""
        ended = self._batch.end([*accepted, *rejected], last=last)
        self._ledger.count("delivered", len(accepted))
        self._ledger.count("rejected", len(rejected))
        is_unsure = self._requests.is_unsure
        if is_unsure:
            self._turn.wait()
        try:
            self._log.settle(ended, sure=not is_unsure)
        except Exception as error:  # noqa: BLE001 - what cannot be taken off the log now is written once more
            self._begin_outage(error)
        else:
            self._turn.is_own_doubt = is_unsure

    def mark(self) -> Mark:
        """Return the end of the log, after everything was put there that belongs there."""
        try:
            return Mark(0, self._complete(self._log.log_state()).last)
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)
            return Mark(0)

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing before a mark is on the log any more."""
        try:
            state = self._log.log_state()
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)
            return False
        if mark.store is None:
            return state.first is None and state.is_complete
        return state.first is None or state.first > mark.store

    def is_drained(self) -> bool:
        """Return whether everything that belongs on the log was there, and is settled."""
        return self.is_settled(Mark(0))

    def close(self) -> None:
        """Let another process write."""
        try:
            self._log.release_lease()
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)

    def _claim(self, *, urgent: bool) -> Claim:
        if not self._log.try_acquire_lease():
            self._turn.lose()
            return Claim()
        state = self._log.log_state()
        writes_at = self._turn.comes_at(is_unsure=state.is_unsure)
        if writes_at > monotonic():
            return Claim(next_at=writes_at)
        if state.is_complete and state.first is None:
            self._due_at = inf
            return Claim()
        if not (urgent or self._outage.is_active or self._is_due(state)):
            return Claim(next_at=self._due_at)
        self._due_at = inf
        return self._claim_now(self._complete(state).last)

    def _claim_now(self, last: int) -> Claim:
        suspects = self._requests.suspects
        limit = min(self._batch.size, self._requests.max_batch)
        self._turn.is_own_doubt = True
        claimed = self._log.claim(limit + self._batch.count_last(suspects))
        self._turn.is_own_doubt = bool(claimed)
        chosen = self._batch.begin(claimed, suspects, limit)
        messages = [self._message(body, change) for body, change in chosen.items()]
        return Claim(messages, has_more=len(chosen) < len(claimed) or _are_all_before(claimed, last))

    def _is_due(self, state: LogState) -> bool:
        """Return whether changes wait long enough, or for a full batch."""
        if state.first is not None and state.last - state.first >= self._batch.size:
            return True
        self._due_at = min(self._due_at, monotonic() + self._pace.interval_seconds)
        return monotonic() >= self._due_at

    def _complete(self, state: LogState) -> LogState:
        """Put everything on the log that belongs there, until the deadline; return its new state."""
        if state.is_complete:
            return state
        self._log.start_log()
        while self._log.sweep() and monotonic() < self._deadline:
            pass
        return self._log.log_state()

    def _message(self, body: bytes, change: TraitChange) -> Message:
        return Message(
            f"{change.identifier}\0{change.trait_key}",
            blake2b(body, digest_size=16).digest(),
            body,
            0.0,
            self._destination,
            0.0,
            version=change.positions[0],
        )

    def _begin_outage(self, error: Exception) -> None:
        self._outage.begin(f"The store of cohorts cannot be used ({type(error).__name__}): traits wait")


def _are_all_before(changes: Collection[TraitChange], position: int) -> bool:
    """Return whether there are changes, and all are before a position of the log."""
    return bool(changes) and max(change.positions[-1] for change in changes) < position
