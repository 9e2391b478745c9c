"""An outbox that survives its process and is shared: a memory outbox in front of a backend.

Guarantee: saved messages survive. Messages that the backend cannot store now are kept in memory and sent from there.
Only the process that holds the lease sends, from the backend or from memory. Before it sends more from the backend, it
tells the backend what was sent from memory, so that nothing older follows something newer. Boundary: that of the
backend; a process that alone cannot use it for long sends without the lease, so that something older may follow.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from math import inf

from flagsync._clock import monotonic
from flagsync._outbox.accounting import Accounting
from flagsync._outbox.backend import Backend, Status
from flagsync._outbox.contract import (
    Absences,
    Claim,
    Destination,
    Kept,
    Limits,
    Mark,
    Message,
    Repeat,
    count_events,
)
from flagsync._outbox.gathering import Gathering
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.options import Staging
from flagsync._outbox.outage import BackendOutage
from flagsync._outbox.schedule import Schedule
from flagsync._outbox.sent import SentMessages
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger


class DurableOutbox:
    """Keeps messages in memory until the backend has stored them. While that fails, memory is the outbox.

    Args:
        memory: Where messages are gathered, and where they wait while the backend cannot be used.
        backend: Where they wait otherwise.
        limits: Bounds of one request.
        staging: When to save, and when to try again after a failure.
        ledger: Gets the backend's counts of this process's messages.
        report: Where outages and losses are reported.
        destinations: ``is_settled`` waits for all of their messages, whichever process has put them, besides those of
            the destinations that this process has put messages for.
    """

    is_shared = True

    def __init__(
        self,
        memory: MemoryOutbox,
        backend: Backend,
        *,
        limits: Limits,
        staging: Staging,
        ledger: Ledger,
        report: Reporter,
        destinations: Collection[Destination] = (),
    ) -> None:
        self._memory, self._backend, self._limits, self._destinations = memory, backend, limits, destinations
        # Held during I/O of the backend, and only by the threads of this outbox: no caller waits for it.
        self._io = threading.RLock()
        self._outage = BackendOutage(staging, report, memory.__len__)
        self._accounting = Accounting(ledger, report)
        self._sent = SentMessages(limits.max_remembered)
        self._batch: Sequence[Message] = ()  # in flight, claimed from the backend
        self._schedule = Schedule(staging, limits.max_pending)
        self._gathering = Gathering(limits)
        self._postponed_up_to = 0  # the highest version that a postponed message got

    @property
    def is_remote(self) -> bool:
        return self._backend.lease_seconds > 0  # else a kernel sees that its holder has ended

    def confirm(self, repeats: Sequence[Repeat]) -> Sequence[Repeat]:
        with self._io:
            if (new := self._save(repeats)) is None:
                new = self._memory.confirm(repeats)
                for repeat in {*repeats}.difference(new):
                    self._sent.bring_forward(repeat.destination, repeat.key, repeat.evaluated_at)
        return new

    def put(self, message: Message) -> None:
        if self._outage.is_active:
            with self._io:
                self._memory.put(message, is_news=not self._outage.is_active)
                # The backend learns when it was last evaluated, even if memory has sent an equal message.
                self._sent.bring_forward(message.destination, message.key, message.evaluated_at)
        else:  # even an equal message tells the backend when it was evaluated
            self._memory.put(message, is_news=True)
        # While the sender uses the backend, continue encoding, but only for some time.
        if self._schedule.is_due_after_put() and self._io.acquire(blocking=self._schedule.is_overdue()):
            try:
                self._save()
            finally:
                self._io.release()

    def save(self) -> None:
        with self._io:
            self._save()

    def has_full_batch(self) -> bool:
        pending = self._accounting.status.pending
        return self._memory.has_full_batch() if self._outage.is_active else self._gathering.is_full(pending)

    def note_absences(self, destination: Destination, absences: Absences) -> Absences | None:
        with self._io:
            return self._outage.attempt(lambda: self._backend.note_absences(destination, absences))

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        with self._io:
            # Usually the encoder's thread saves. Save here if it is held up, or if an outage may be over.
            has_unsaved = bool(len(self._memory) or len(self._sent))
            if (has_unsaved and self._schedule.is_late()) or self._outage.is_active:
                self._save()
            if self._outage.is_active:
                return self._claim_from_memory(resting, urgent=urgent)
            return self._outage.attempt(lambda: self._claim_from_backend(resting, urgent=urgent)) or Claim()

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        with self._io:
            batch, self._batch = self._batch, ()
            if not batch:
                self._sent.add(accepted, is_certain=True)
                self._memory.settle(accepted, rejected, last=last)
                return
            settled = {message.version for message in (*accepted, *rejected)}
            left = [message for message in batch if last and message.version not in settled]
            try:
                self._backend.settle(accepted, rejected, left, self._schedule.busy_deadline())
                status = self._read_status()
                if left:  # they have new versions, but were put before
                    self._postponed_up_to = status.last_version
            except Exception as error:  # noqa: BLE001 - they stay there, and are sent once more
                self._outage.begin(error)

    def mark(self) -> Mark:
        with self._io:
            if len(self._memory):  # sent in an outage, and failed after it
                self._save()
            in_memory = self._memory.mark().memory
            status = self._outage.attempt(self._read_status)
            return Mark(in_memory, None if status is None else status.last_version)

    def is_settled(self, mark: Mark) -> bool:
        with self._io:
            if not self._memory.is_settled(mark):
                return False
            if (status := self._outage.attempt(self._read_status)) is None:
                return not any(self.kept())
            first = status.first_version
            return first is None or (mark.store is not None and first > max(mark.store, self._postponed_up_to))

    def has_pending(self) -> bool:
        with self._io:
            status = self._outage.attempt(self._read_status)
            return self._memory.has_pending() or (status is not None and status.pending > 0)

    def kept(self) -> Kept:
        return self._accounting.pending

    def waits_since(self) -> float:
        return min(self._memory.waits_since(), self._accounting.waits_since)

    def outages(self) -> Sequence[Outage]:
        return [self._outage.outage, self._accounting.silence]

    def set_deadline(self, deadline: float) -> None:
        self._schedule.deadline = deadline

    def abandon(self) -> None:
        self._memory.abandon()  # a save that is under way may still succeed

    def close(self) -> None:
        with self._io, suppress(Exception):  # there is nothing left to do about it
            if len(self._sent) or len(self._memory):
                self._store()  # even if the pause after a failure is not over
        with self._io, suppress(Exception):
            self._outage.close()
            self._backend.close()

    def _save(self, repeats: Sequence[Repeat] = ()) -> Sequence[Repeat] | None:
        """Store the messages in memory; return the repeats to evaluate, or None if the backend cannot be used."""
        new: Sequence[Repeat] | None = None
        self._schedule.note_save()
        if self._outage.may_use_backend():
            try:
                if len(self._memory) or len(self._sent) or self._outage.is_active or repeats:
                    if self._outage.is_active:
                        self._backend.try_acquire_lease()  # the outage goes on if nobody can hold the lease
                    new = self._store(repeats)
                    self._read_status()
                    self._outage.end()
            except Exception as error:  # noqa: BLE001 - the thread and its messages survive any error
                self._outage.begin(error)
        return new

    def _store(self, repeats: Sequence[Repeat] = ()) -> Sequence[Repeat]:
        with self._memory.hand_over() as messages:
            new = self._backend.store(messages, self._sent.messages(), repeats, self._schedule.busy_deadline())
        events = count_events(messages)
        self._accounting.note_stored(len(messages) - events + len(repeats) - len(new), events)
        self._sent.clear()
        return new

    def _claim_from_memory(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        if not self._may_send_from_memory():
            return Claim()
        claim = self._memory.claim(resting, urgent=urgent)
        # Whatever the outcome, Mixpanel may no longer have what the backend remembers.
        self._sent.add(claim.messages, is_certain=False)
        if not claim.messages and not len(self._memory) and (not len(self._sent) or self._outage.is_long()):
            with suppress(Exception):  # a lease that fails is not used
                self._backend.close()
        return claim

    def _may_send_from_memory(self) -> bool:
        try:
            # The holder may well use the backend, and never let go of the lease.
            return self._backend.try_acquire_lease() or self._outage.is_long()
        except Exception:  # noqa: BLE001 - if nobody can acquire the lease, nobody else sends once it has ended
            is_over = self._outage.has_lasted(self._backend.lease_seconds)
            return is_over or self._schedule.deadline < inf  # a client that closes cannot wait

    def _claim_from_backend(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        until = self._schedule.until(self._backend.lease_seconds)
        holds_lease = self._backend.try_acquire_lease()
        status = self._read_status()
        due_at = self._gathering.due_at(status) if holds_lease else inf
        if due_at == inf or (due_at > monotonic() and not urgent):
            return Claim(next_at=due_at)
        self._batch = self._backend.claim([*resting], self._limits)
        if not self._batch:
            return Claim(next_at=min(resting.values(), default=inf))
        has_more = status.pending > len(self._batch)
        self._gathering.note_claim(len(self._batch), has_more=has_more)
        return Claim(self._batch, has_more=has_more, until=until)

    def _read_status(self) -> Status:
        status = self._backend.status({*self._destinations, *self._memory.destinations()})
        self._accounting.update(status)
        return status
