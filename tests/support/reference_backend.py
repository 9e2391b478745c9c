"""The contract of an outbox backend, as plainly as Python can say it: in memory, without any regard to speed."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf
from time import monotonic, time

from flagsync._outbox.backend import Status, StoreTotals, Totals
from flagsync._outbox.batch import fitting
from flagsync._outbox.contract import Destination, Limits, Message, Repeat

Slot = tuple[Destination, str]
_numbers = count(1)


@dataclass
class Last:
    """The last message of a key, whether it waits or not."""

    version: int
    fingerprint: bytes
    evaluated_at: float
    evaluation: int | None
    resend_after_seconds: float
    accepted_at: float = -inf


@dataclass
class ReferenceStore:
    """What the processes share."""

    max_pending: int = 1_000_000
    number: int = field(default_factory=lambda: next(_numbers))
    waiting: dict[int, tuple[Message, object]] = field(default_factory=dict)  # by version: message and owner
    waits_since: dict[int, float] = field(default_factory=dict)  # by version: when it was evaluated first
    last: dict[Slot, Last] = field(default_factory=dict)
    destinations: list[Destination] = field(default_factory=list)
    counts: dict[object, Counter[str]] = field(default_factory=dict)  # by process
    event_counts: defaultdict[object, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    accounts: dict[int, int] = field(default_factory=dict)  # the numbers of the accounts, by id of their counts
    kept: list[Counter[str]] = field(default_factory=list)
    last_version: int = 0
    lease_holder: object = None
    absences: defaultdict[Destination, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))

    def next_version(self) -> int:
        self.last_version += 1
        return self.last_version

    def pending_of(self, destination: Destination) -> list[Message]:
        """Return the waiting messages of a destination, the oldest first."""
        messages = [self.waiting[version][0] for version in sorted(self.waiting)]
        return [message for message in messages if message.destination == destination]

    def end(self, message: Message, outcome: str) -> bool:
        """End the waiting of a message; False if this version does not wait."""
        if message.version not in self.waiting:
            return False
        waiting, owner = self.waiting.pop(message.version)
        self.counts[owner][outcome] += 1
        if not waiting.replaces:
            self.event_counts[owner][outcome] += 1
        return True


class ReferenceBackend:
    """One process of those that share a store."""

    lease_seconds = 0.0

    def __init__(self, store: ReferenceStore) -> None:
        self.shared = store
        self.turn = -1  # the place of the destination that was claimed last

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        for message in sent:
            self.note_destination(message.destination)
            self.add_sent(message)
        for message in messages:
            self.note_destination(message.destination)
            self.count("accepted", message)
            self.add(message)
        for destination in self.shared.destinations:
            pending = self.shared.pending_of(destination)
            for message in pending[: max(0, len(pending) - self.shared.max_pending)]:
                self.drop(message)
        for repeat in repeats:
            self.note_destination(repeat.destination)  # its message comes next
        return [repeat for repeat in repeats if not self.confirm(repeat)]

    def add_sent(self, message: Message) -> None:
        last = self.last(message)
        if last is not None and self.is_late(message, last):
            return
        if last is not None and message.replaces and last.version in self.shared.waiting:
            self.shared.end(self.shared.waiting[last.version][0], "superseded")
        self.remember(message, self.shared.next_version(), accepted_at=time())

    def add(self, message: Message) -> None:
        last = self.last(message)
        is_late = last is not None and self.is_late(message, last)
        if last is not None and self.is_unchanged(message, last):
            self.count("unchanged", message)
            self.touch(last, message)
        elif is_late and message.replaces:
            self.counts["superseded"] += 1
        else:
            if last is not None and message.replaces and last.version in self.shared.waiting:
                self.shared.end(self.shared.waiting[last.version][0], "superseded")
            version = self.shared.next_version()
            self.shared.waiting[version] = message._replace(version=version, evaluation=None), self
            self.shared.waits_since[version] = message.evaluated_at
            if not is_late:
                self.remember(message, version)

    def count(self, outcome: str, message: Message) -> None:
        self.counts[outcome] += 1
        if not message.replaces:
            self.shared.event_counts[self][outcome] += 1

    def confirm(self, repeat: Repeat) -> bool:
        last = self.last(repeat)
        if last is None or not self.is_repeat(repeat, last):
            return False
        self.counts.update(["accepted", "unchanged"])
        self.touch(last, repeat)
        return True

    def remember(self, message: Message, version: int, accepted_at: float = -inf) -> None:
        last = Last(
            version,
            message.fingerprint,
            message.evaluated_at,
            message.evaluation,
            message.resend_after_seconds,
            accepted_at,
        )
        self.shared.last[message.destination, message.key] = last

    def touch(self, last: Last, message: Message | Repeat) -> None:
        if self.is_late(message, last):
            return
        last.evaluated_at, last.evaluation = message.evaluated_at, message.evaluation
        if last.version in self.shared.waiting:
            waiting, owner = self.shared.waiting[last.version]
            self.shared.waiting[last.version] = waiting._replace(evaluated_at=message.evaluated_at), owner

    def is_late(self, message: Message | Repeat, last: Last) -> bool:
        return message.evaluated_at < last.evaluated_at <= monotonic()

    def is_unchanged(self, message: Message, last: Last) -> bool:
        return message.fingerprint == last.fingerprint and self.is_current(last, message.resend_after_seconds)

    def is_repeat(self, repeat: Repeat, last: Last) -> bool:
        return repeat.evaluation == last.evaluation and self.is_current(last, last.resend_after_seconds)

    def is_current(self, last: Last, resend_after_seconds: float) -> bool:
        return last.version in self.shared.waiting or 0 <= time() - last.accepted_at < resend_after_seconds

    def drop(self, message: Message) -> None:
        self.shared.end(message, "dropped")
        if (last := self.last(message)) is not None and last.version == message.version:
            del self.shared.last[message.destination, message.key]

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        places = [*range(self.turn + 1, len(self.shared.destinations)), *range(self.turn + 1)]
        for place in places:
            destination = self.shared.destinations[place]
            if destination not in resting and (pending := self.shared.pending_of(destination)):
                self.turn = place
                return fitting(pending, limits)
        return []

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        for message in accepted:
            known = self.last(message)
            if self.shared.end(message, "delivered") and known is not None and known.version == message.version:
                known.accepted_at = time()
        for message in rejected:
            self.shared.end(message, "rejected")
        for message in last:
            self.move_behind(message)

    def move_behind(self, message: Message) -> None:
        if message.version in self.shared.waiting:
            version, known = self.shared.next_version(), self.last(message)
            kept, owner = self.shared.waiting.pop(message.version)
            self.shared.waiting[version] = kept._replace(version=version), owner
            self.shared.waits_since[version] = self.shared.waits_since[message.version]
            if known is not None and known.version == message.version:
                known.version = version

    def status(self, destinations: Collection[Destination]) -> Status:
        waiting = self.shared.waiting
        versions = [version for version, [message, _] in waiting.items() if message.destination in destinations]
        return Status(
            store=self.shared.number,
            account=self.shared.accounts.get(id(self.counts), 0) if self in self.shared.counts else 0,
            own=Totals(**self.shared.counts.get(self, Counter())),
            own_events=Totals(**self.shared.event_counts[self]),
            pending=len(waiting),
            oldest_seconds=monotonic() - self.shared.waits_since[min(waiting)] if waiting else 0.0,
            first_version=min(versions, default=None),
            last_version=self.shared.last_version,
            silent_seconds=0.0,
        )

    def totals(self) -> StoreTotals:
        every, events = self.shared.counts.values(), self.shared.event_counts.values()
        oldest_seconds = self.status([]).oldest_seconds
        return StoreTotals(
            Totals(**sum(every, Counter[str]())), Totals(**sum(events, Counter[str]())), oldest_seconds
        )

    def try_acquire_lease(self) -> bool:
        if self.shared.lease_holder is None:
            self.shared.lease_holder = self
        return self.shared.lease_holder is self

    def note_absences(self, destination: Destination, since: Mapping[str, float]) -> Mapping[str, float]:
        self.shared.absences[destination].update(since)
        return {**self.shared.absences[destination]}

    def close(self) -> None:
        if self.shared.lease_holder is self:
            self.shared.lease_holder = None

    @property
    def counts(self) -> Counter[str]:
        """What became of this process's messages."""
        if self not in self.shared.counts:
            self.shared.counts[self] = counts = Counter[str]()
            self.shared.kept.append(counts)  # so that no other one has its id
            self.shared.accounts[id(counts)] = len(self.shared.kept)
        return self.shared.counts[self]

    def last(self, message: Message | Repeat) -> Last | None:
        return self.shared.last.get((message.destination, message.key))

    def note_destination(self, destination: Destination) -> None:
        if destination not in self.shared.destinations:
            self.shared.destinations.append(destination)


class UnreliableBackend(ReferenceBackend):
    """Fails where a test says so, as a rule before it has done anything.

    Attributes:
        broken: Names of the methods that raise.
        after: Of those that raise after they have done everything.
        deadlines: Those that ``store`` and ``settle`` were called with.
        before: Called by each method with its name.
    """

    def __init__(self, store: ReferenceStore) -> None:
        super().__init__(store)
        self.broken, self.after, self.deadlines = set[str](), set[str](), list[float]()
        self.before: Callable[[str], object] = str

    def break_all(self) -> None:
        """Let each method raise that uses the store itself; the lease can be had all the same."""
        self.broken = {"store", "claim", "settle", "status"}

    def mend(self) -> None:
        self.broken = set()

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        self.deadlines.append(deadline)
        self.begin("store")
        new = super().store(messages, sent, repeats, deadline)
        if "store" in self.after:
            raise OSError("no answer came")
        return new

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        self.begin("claim")
        return super().claim(resting, limits)

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        self.deadlines.append(deadline)
        self.begin("settle")
        super().settle(accepted, rejected, last, deadline)

    def status(self, destinations: Collection[Destination]) -> Status:
        self.begin("status")
        return super().status(destinations)

    def try_acquire_lease(self) -> bool:
        self.begin("try_acquire_lease")
        return super().try_acquire_lease()

    def note_absences(self, destination: Destination, since: Mapping[str, float]) -> Mapping[str, float]:
        self.begin("note_absences")
        return super().note_absences(destination, since)

    def close(self) -> None:
        self.begin("close")
        super().close()

    def begin(self, name: str) -> None:
        self.before(name)
        if name in self.broken:
            raise OSError("it is broken")
