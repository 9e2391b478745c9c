"""The change log of an environment, as a sender sees it.

Guarantee: a change leaves the log only when Flagsmith has accepted it and no earlier request with it can still be under
way, or when Flagsmith has refused it alone often enough to be sure. Nothing is claimed without the lease. A store that
fails is reported once, and used again when it works. Boundary: how changes are sent.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from math import inf

from flagsync._clock import monotonic
from flagsync._delivery.answers import Answer, Outcome
from flagsync._outbox.contract import Claim, Destination, Mark, Message
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger
from flagsync.cohorts.store import ChangeLog, LogState, TraitChange
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.refusals import Refusals
from flagsync.cohorts.trait_writer.requests import Requests
from flagsync.cohorts.trait_writer.service import as_json, as_message, obstacle_of
from flagsync.exceptions import DeliveryError


class ChangeList:
    """The ``Delivery`` of a sender over a change log; see ``flagsync._outbox.contract``.

    Args:
        log: The change log of the environment.
        destination: Where the changes go.
        requests: The requests that carry them.
        ledger: Where written and rejected changes are counted.
        report: Where outages of the store, and changes that Flagsmith fails on, are reported, deferred.
        pace: When changes are written, and when again.
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
        self._ledger, self._report, self._outage = ledger, report, Outage(report)
        self._in_flight: dict[bytes, TraitChange] = {}
        self._refusals = Refusals(pace.max_tries)
        self._claimed_up_to = 0
        self._due_at = inf  # for changes that wait for others
        self._deadline = inf

    def set_deadline(self, deadline: float) -> None:
        """Do not sweep any more after a time of ``time.monotonic()``."""
        self._deadline = deadline

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        """Put the first changes in flight, if this process may write."""
        if self._destination in resting:
            return Claim(next_at=resting[self._destination])
        try:
            claim = self._claim(urgent=urgent)
            if self._outage.is_active and not claim.messages:
                self._log.start()  # this changes nothing, but tells whether the store can be written to
        except Exception as error:  # noqa: BLE001 - a store may raise anything, and the thread goes on
            self._begin_outage(error)
            return Claim(next_at=monotonic() + self._pace.interval_seconds)
        self._outage.end("The store of cohorts is in use again")
        return claim

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        """Settle the changes in flight: take them off the log, or have them written again."""
        failures, flight = self._requests.take_failures(), self._in_flight
        self._in_flight = {}
        failed = {flight.pop(body): answer for body, answer in failures.items() if body in flight}
        written = [flight.pop(message.body) for message in accepted if message.body in flight]
        refused = [flight.pop(message.body) for message in rejected]
        self._ledger.count("delivered", len(written))
        self._ledger.count("rejected", len(refused))
        self._refusals.note_written(written)
        try:
            self._log.settle([*refused, *(change for change in written if not change.is_unsure)])
            self._write_again([change for change in written if change.is_unsure])
            self._set_aside(failed)
            self._put_back(flight.values(), are_refused=last)
        except Exception as error:  # noqa: BLE001 - what cannot be taken off the log now is written once more
            self._begin_outage(error)
        self._refusals.note_refused([*refused, *failed])

    def mark(self) -> Mark:
        """Complete the log, and return a mark at its end."""
        try:
            return Mark(0, self._complete(self._log.state()).last)
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)
            return Mark(0)

    def is_settled(self, mark: Mark) -> bool:
        """Return whether nothing before a mark is on the log any more."""
        try:
            state = self._log.state()
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)
            return False
        if mark.store is None:
            return state.first is None and state.is_complete
        return state.first is None or state.first > mark.store

    def is_drained(self) -> bool:
        """Return whether the log is complete, and all of it is settled."""
        return self.is_settled(Mark(0))

    def close(self) -> None:
        """Let another process write."""
        try:
            self._log.release_lease()
        except Exception as error:  # noqa: BLE001 - as above
            self._begin_outage(error)

    def _claim(self, *, urgent: bool) -> Claim:
        if not self._log.try_acquire_lease():
            return Claim()
        state = self._complete(self._log.state())
        if state.due_in_seconds > 0:
            self._due_at = inf
            return Claim(next_at=monotonic() + state.due_in_seconds)
        if not (urgent or self._outage.is_active or self._is_due(state)):
            return Claim(next_at=self._due_at)
        self._due_at = inf
        return self._claim_now()._replace(has_more=state.last > self._claimed_up_to)

    def _claim_now(self) -> Claim:
        """Put the first changes in flight that may be sent together, the shortest first."""
        until = self._pace.write_until(self._log.lease_seconds)
        while claimed := self._log.claim(self._requests.max_batch):
            self._claimed_up_to = max(self._claimed_up_to, *(change.position for change in claimed))
            usable = self._reject_unusable(claimed)
            together, apart = list[TraitChange](), list[TraitChange]()
            for change in usable:
                is_apart = change.tries == 0 and self._refusals.has(change)
                (apart if is_apart else together).append(change)
            self._postpone([change._replace(tries=1) for change in apart], 0.0)
            self._in_flight = {as_json(change): change for change in together}
            if self._in_flight:
                break
        # Flagsmith refuses long identifiers most often. Next to each other they are found in few requests.
        bodies = sorted(self._in_flight, key=len)
        messages = [as_message(body, self._in_flight[body], self._destination) for body in bodies]
        return Claim(messages, until=until)

    def _is_due(self, state: LogState) -> bool:
        """Return whether changes wait long enough, or for a full batch."""
        if state.last - self._claimed_up_to >= self._requests.max_batch:
            return True
        self._due_at = min(self._due_at, monotonic() + self._pace.interval_seconds)
        return monotonic() >= self._due_at

    def _complete(self, state: LogState) -> LogState:
        """Complete the log, unless the deadline comes first; return its new state."""
        if state.is_complete:
            return state
        self._log.start()
        while self._log.sweep() and monotonic() < self._deadline:
            pass
        return self._log.state()

    def _write_again(self, changes: Collection[TraitChange]) -> None:
        """Have changes whose request got no answer written once more, when that request must have ended."""
        seconds = self._pace.unsure_for(self._requests.slowest_seconds)
        self._postpone([change._replace(is_unsure=False) for change in changes], seconds)

    def _put_back(self, changes: Collection[TraitChange], *, are_refused: bool) -> None:
        """Have changes that were not accepted written again: behind others if these were refused or tried before."""
        if are_refused:
            self._postpone(changes, self._pace.retry_after(self._refusals.count_batch()))
        elif any(change.tries for change in changes):
            is_unsure = self._requests.is_unsure
            again = [change._replace(is_unsure=change.is_unsure or is_unsure) for change in changes]
            self._postpone(again, self._pace.interval_seconds)
        elif not self._requests.is_unsure:
            self._postpone(changes, 0.0)

    def _set_aside(self, failed: Mapping[TraitChange, Answer]) -> None:
        """Retry changes that the server fails on alone; give up those that have failed too often."""
        # While the server itself is failing, a failure says nothing about the change.
        counted = {change for change, answer in failed.items() if answer.outcome is not Outcome.UNAVAILABLE}
        given_up = [change for change in failed if change in counted and self._refusals.is_last(change)]
        for change in failed.keys() - given_up:
            tries = max(change.tries + (change in counted), 1)
            self._postpone([change._replace(tries=tries)], self._pace.retry_after(tries))
        if given_up:
            self._log.settle(given_up)
            self._ledger.count("rejected", len(given_up))
        new = [change for change in failed if change in counted and not change.tries]
        for changes, will_retry in ((new, True), (given_up, False)):
            if changes:
                answer, identifiers = failed[changes[0]], tuple(change.identifier for change in changes)
                self._report.defer(
                    DeliveryError(
                        answer.reason,
                        len(changes),
                        will_retry=will_retry,
                        identifiers=identifiers,
                        answer=answer.text,
                    )
                )

    def _reject_unusable(self, claimed: Collection[TraitChange]) -> list[TraitChange]:
        """Take changes off the log that Flagsmith cannot store; return the others."""
        usable, unusable = list[TraitChange](), defaultdict[str, list[TraitChange]](list)
        for change in claimed:
            obstacle = obstacle_of(change.identifier)
            (usable if obstacle is None else unusable[obstacle]).append(change)
        for obstacle, changes in unusable.items():
            self._log.settle(changes)
            self._ledger.count("rejected", len(changes))
            identifiers = tuple(change.identifier for change in changes)
            self._report.defer(DeliveryError(obstacle, len(changes), identifiers=identifiers))
        return usable

    def _postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        if changes:
            self._log.postpone(changes, seconds)

    def _begin_outage(self, error: Exception) -> None:
        self._outage.begin(
            f"The store of cohorts cannot be used ({type(error).__name__}): traits are written later"
        )
