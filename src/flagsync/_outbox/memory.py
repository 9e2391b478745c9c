"""The outbox of one process, in memory.

Guarantee: the latest message of each key wins. Pending and remembered messages are bounded, and cost the garbage
collector nothing. Boundary: they are lost with the process.
"""

import threading
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from math import inf

from flagsync._clock import monotonic
from flagsync._oldest import first_of
from flagsync._outbox.batch import Batch, fitting_contents, message_of
from flagsync._outbox.contract import (
    Absences,
    Claim,
    Destination,
    Kept,
    Limits,
    Mark,
    Message,
    Repeat,
)
from flagsync._outbox.queue import UNKNOWN, Entry, Queue, evaluated_again, slot_of
from flagsync._report import MAX_PENDING_REACHED, Outage, Reporter
from flagsync._stats import Ledger


class MemoryOutbox:
    """An outbox in memory. Any thread may call; no call waits for I/O.

    Args:
        limits: Bounds of pending messages and of one request.
        ledger: Where the outcome of each message is counted.
        report: Where drops are counted.
    """

    is_shared = is_remote = False

    def __init__(self, limits: Limits, ledger: Ledger, report: Reporter) -> None:
        self._limits, self._ledger, self._report = limits, ledger, report
        self._lock = threading.RLock()  # held while dictionaries change, and never while calling out
        self._queues: dict[Destination, Queue] = {}
        self._in_flight: dict[str, Entry] = {}  # by slot
        self._flying_to = Destination("")
        self._absences: dict[Destination, dict[str, float]] = {}
        self._version = 0
        self._is_abandoned = False

    def __len__(self) -> int:
        """How many messages wait."""
        return sum(len(queue.waiting) for queue in [*self._queues.values()])

    def confirm(self, repeats: Sequence[Repeat]) -> Sequence[Repeat]:
        with self._lock:
            now, new = monotonic(), list[Repeat]()
            for repeat in repeats:
                destination, key, evaluation, _ = repeat
                queue = self._queues.get(destination)
                if queue is None or not queue.is_known(key, evaluation, now):
                    new.append(repeat)
                elif queue.waiting or self._in_flight:
                    self._bring_forward(*repeat)
        self._ledger.count("unchanged", len(repeats) - len(new))
        return new

    def put(self, message: Message, *, is_news: bool = False) -> None:
        """Put a message; with ``is_news``, even one that equals the last message of its key."""
        with self._lock:
            queue = self._queue(message.destination)
            _, fingerprint, until = queue.known.get(message.key) or UNKNOWN
            is_new = is_news or fingerprint != message.fingerprint or monotonic() >= until
            queue.known[message.key] = message.evaluation, message.fingerprint, inf if is_new else until
            if is_new:
                self._version += 1
                if queue.add(message, self._version):
                    self._ledger.count("superseded")
                self._keep_bounds(queue)
            else:
                self._bring_forward(message.destination, message.key, message.evaluation, message.evaluated_at)
                self._ledger.count("unchanged", is_event=not message.replaces)

    def save(self) -> None:
        """Do nothing: memory needs no saving."""

    def has_full_batch(self) -> bool:
        return any(self._is_full(queue) for queue in [*self._queues.values()])

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        kept = self._absences.setdefault(destination, {})
        kept.update(absences)
        return {**kept}

    def claim(self, resting: Mapping[Destination, float], *, urgent: bool) -> Claim:
        with self._lock:
            next_at = inf
            for destination, queue in self._queues.items():
                if not queue.waiting:
                    continue
                gathered = urgent or self._is_full(queue)
                due_at = -inf if gathered else queue.gathers_since + self._limits.flush_interval_seconds
                due_at = max(due_at, resting.get(destination, -inf))
                if due_at <= monotonic():
                    return self._take(destination, queue)
                next_at = min(next_at, due_at)
            return Claim(next_at=next_at)

    def settle(
        self, accepted: Collection[Message], rejected: Collection[Message], *, last: bool = False
    ) -> None:
        with self._lock:
            now, until = monotonic(), dict[float, float]()  # messages share a number, which costs 24 bytes
            for outcome, messages in (("delivered", accepted), ("rejected", rejected)):
                events = 0
                for message in messages:
                    after = message.resend_after_seconds if outcome == "delivered" else -inf
                    self._end(message, until.setdefault(after, now + after))
                    events += not message.replaces
                self._ledger.count(outcome, len(messages) - events)
                self._ledger.count(outcome, events, is_event=True)
            left, self._in_flight = [*self._in_flight.items()], {}
            for slot, entry in left if last else reversed(left):
                queue = self._queue(self._flying_to)
                if not queue.put_back(slot, entry, last=last):
                    self._ledger.count("superseded")
                self._keep_bounds(queue)

    def mark(self) -> Mark:
        return Mark(self._version)

    def is_settled(self, mark: Mark) -> bool:
        with self._lock:
            waiting = (entry for queue in self._queues.values() for entry in queue.waiting.values())
            return all(
                version > mark.memory
                for entries in (self._in_flight.values(), waiting)
                for *_, version, _ in entries
            )

    def has_pending(self) -> bool:
        return bool(len(self) or self._in_flight)

    def kept(self) -> Kept:
        return Kept()

    def waits_since(self) -> float:
        flying = first_of(self._in_flight.values())
        since = [queue.waits_since() for queue in [*self._queues.values()]]
        return min(*since, inf, inf if flying is None else flying[-1])

    def outages(self) -> Sequence[Outage]:
        return ()  # memory does not fail

    def set_deadline(self, deadline: float) -> None:
        """Do nothing: memory is never waited for."""

    def abandon(self) -> None:
        with self._lock:
            self._is_abandoned = True
            for queue in self._queues.values():
                self._keep_bounds(queue)

    def close(self) -> None:
        """Do nothing: no other process waits for this one."""

    @contextmanager
    def hand_over(self) -> Generator[list[Message]]:
        """Yield all waiting messages for a store to take over, unless the block raises.

        What is put meanwhile supersedes none of them. Once the store has them, this outbox remembers no key any more.
        """
        with self._lock:
            messages = [
                message_of(entry, destination)
                for destination, queue in self._queues.items()
                for entry in queue.hand_over()
            ]
        is_stored = False
        try:
            yield messages
            is_stored = True
        finally:
            with self._lock:
                for queue in self._queues.values():
                    if is_stored:
                        queue.forget()
                    else:
                        self._ledger.count("superseded", queue.take_back())
                        self._keep_bounds(queue)

    def destinations(self) -> Collection[Destination]:
        """Return the destinations that messages were put for."""
        return [*self._queues]

    def _bring_forward(
        self, destination: Destination, key: str, evaluation: int | None, evaluated_at: float
    ) -> None:
        """Note that a pending message was evaluated again, with an equal result."""
        self._queue(destination).bring_forward(key, evaluation, evaluated_at)
        flying = self._in_flight.get(key)
        if flying is not None and self._flying_to == destination:
            self._in_flight[key] = evaluated_again(flying, evaluation, evaluated_at)

    def _queue(self, destination: Destination) -> "Queue":
        if (queue := self._queues.get(destination)) is None:
            queue = self._queues[destination] = Queue(self._limits.max_remembered)
        return queue

    def _is_full(self, queue: "Queue") -> bool:
        size = queue.size + len(queue.waiting) + 1  # two brackets, and a comma between messages
        # A queue at its bound counts as a full request.
        bound = min(self._limits.max_batch_messages, self._limits.max_pending)
        return size >= self._limits.max_batch_bytes or len(queue.waiting) >= bound

    def _take(self, destination: Destination, queue: "Queue") -> Claim:
        batch = Batch(destination, fitting_contents(queue.waiting.values(), self._limits))
        self._flying_to = destination
        for slot in [*islice(queue.waiting, len(batch))]:
            self._in_flight[slot] = queue.remove(slot)
        self._queues[destination] = self._queues.pop(destination)  # destinations take turns
        return Claim(batch, has_more=bool(queue.waiting))

    def _end(self, message: Message, until: float) -> None:
        del self._in_flight[slot_of(message.key, message.replaces, message.version)]
        self._queue(message.destination).know(message.key, message.fingerprint, until)

    def _keep_bounds(self, queue: "Queue") -> None:
        # Messages in flight to the same destination count, too, but there is always room for the newest one.
        is_own = self._queues.get(self._flying_to) is queue
        room = self._limits.max_pending - (len(self._in_flight) if is_own else 0)
        bound = 0 if self._is_abandoned else max(1, room)
        while len(queue.waiting) > bound:
            key, fingerprint, *_, replaces, _version, _since = queue.remove(next(iter(queue.waiting)))
            queue.know(key, fingerprint, -inf)
            self._ledger.count("dropped", is_event=not replaces)
            if not self._is_abandoned:
                self._report.count_loss(MAX_PENDING_REACHED)
