"""What waits for Mixpanel: the ``Outbox`` protocol and the one in memory.

Guarantee: of each profile the latest state wins, and a state equal to the last one that Mixpanel accepted is
not sent again for a while. Bounded in updates that wait and in profiles remembered.
"""

import threading
from collections import Counter, OrderedDict
from collections.abc import Collection, Container, Iterable
from math import inf
from time import monotonic
from typing import NamedTuple, Protocol, TypeAlias

from flagsync._recent import Recent
from flagsync._report import FULL, Reporter

# https://developer.mixpanel.com/reference/profile-batch-update; the total of a request is not documented.
MAX_BATCH_UPDATES, MAX_BATCH_BYTES, MAX_UPDATE_BYTES = 2000, 2_000_000, 1_000_000
REMEMBERED_PROFILES = 50_000


class Destination(NamedTuple):
    """Where updates go; ``project`` tells the tokens of one URL apart, without being one."""

    url: str
    project: str = ""


class Update(NamedTuple):
    """One profile's state on its way; ``json`` is what Mixpanel gets."""

    distinct_id: str
    fingerprint: bytes
    json: bytes
    evaluated_at: float
    destination: Destination
    number: int = 0  # of its row in a file


def fitting(updates: Iterable[Update]) -> list[Update]:
    """The first updates that fit into one request; one at least."""
    batch, size = list[Update](), 1  # the brackets, and a comma between updates
    for update in updates:
        size += len(update.json) + 1
        if len(batch) == MAX_BATCH_UPDATES or (batch and size > MAX_BATCH_BYTES):
            break
        batch.append(update)
    return batch


class Outbox(Protocol):
    """The updates that wait, as they were evaluated: what a sender takes from, in a thread of its own.

    ``take`` puts the oldest updates that fit into one request *in flight*, of a destination that does not rest;
    ``settle`` ends the flight: what is neither accepted nor rejected waits again, first in line, unless a newer
    state does. ``newest`` is the time of the last evaluation put, ``oldest`` of the first that is not settled,
    in seconds since 1970. ``full``: a request is. ``waiting``: something that this process is to take. Other
    processes that have part in a ``shared`` outbox wake nobody here.
    """

    shared: bool

    @property
    def newest(self) -> float: ...
    def full(self) -> bool: ...
    def waiting(self) -> bool: ...
    def oldest(self) -> float | None: ...
    def take(self, resting: Container[Destination] = ()) -> list[Update]: ...
    def settle(self, accepted: Collection[Update], rejected: Collection[Update]) -> None: ...


# A plain tuple, which the garbage collector need not look at again.
Known: TypeAlias = tuple[int | None, bytes, float]
"""The last state of a profile that Mixpanel has or gets: key, fingerprint, and until when that counts."""
UNKNOWN: Known = (None, b"", -inf)


class MemoryOutbox:
    """The outbox of one process, lost with it.

    One thread puts and saves, one takes, any may ask. ``put`` lets a state wait in place of an older one; it is
    False if Mixpanel has the state, or gets it anyway, as is ``unchanged`` True of the evaluation with the same
    ``key``. What was put may be taken, and is as safe as it will be, after ``save``. ``close`` drops what
    waits, now and from now on, but for what is ``kept`` for other processes.
    """

    shared = False

    def __init__(
        self, destination: Destination, max_pending: int, resend_after_seconds: float, report: Reporter
    ) -> None:
        self.newest = 0.0
        self._destination, self._report = destination, report
        self._max_pending, self._resend_after_seconds = max_pending, resend_after_seconds
        self._lock = threading.RLock()
        self._waiting: OrderedDict[str, Update] = OrderedDict()
        self._bytes = 0  # of what waits
        self._in_flight: dict[str, Update] = {}
        self._known: Recent[Known] = Recent(REMEMBERED_PROFILES)
        self._counts = Counter(delivered=0, rejected=0, superseded=0, dropped=0)
        self._closed = False

    def unchanged(self, distinct_id: str, key: int) -> bool:
        with self._lock:
            known_key, _, until = self._known.get(distinct_id) or UNKNOWN
            return known_key == key and monotonic() < until

    def put(
        self, distinct_id: str, key: int | None, fingerprint: bytes, json: bytes, evaluated_at: float
    ) -> bool:
        with self._lock:
            _, known, until = self._known.get(distinct_id) or UNKNOWN
            new = known != fingerprint or monotonic() >= until
            self._known[distinct_id] = (key, fingerprint, inf if new else until)
            if new:
                self.newest = max(self.newest + 1e-6, evaluated_at)  # a clock may be put back
                update = Update(distinct_id, fingerprint, json, self.newest, self._destination)
                if distinct_id in self._waiting:
                    self._remove(distinct_id, "superseded")
                self._waiting[distinct_id] = update
                self._bytes += len(json)
                self._keep_bounds()
            return new

    def save(self) -> None:
        """Nothing to do: memory is as safe as it gets."""

    def full(self) -> bool:
        # Two brackets and a comma between updates; a bound that is reached is as good as a full request.
        size, bound = self._bytes + len(self._waiting) + 1, min(MAX_BATCH_UPDATES, self._max_pending)
        return size >= MAX_BATCH_BYTES or len(self._waiting) >= bound

    def waiting(self) -> bool:
        return bool(self._waiting)

    def oldest(self) -> float | None:
        with self._lock:
            firsts = [next(iter(some.values())) for some in (self._in_flight, self._waiting) if some]
            return min((first.evaluated_at for first in firsts), default=None)

    def take(self, resting: Container[Destination] = ()) -> list[Update]:
        with self._lock:
            batch = [] if self._destination in resting else fitting(self._waiting.values())
            for update in batch:
                self._remove(update.distinct_id)
                self._in_flight[update.distinct_id] = update
            return batch

    def settle(self, accepted: Collection[Update], rejected: Collection[Update]) -> None:
        with self._lock:
            now = monotonic()
            for updates, until in ((accepted, now + self._resend_after_seconds), (rejected, -inf)):
                for update in updates:
                    del self._in_flight[update.distinct_id]
                    self._know(update, until)
            self._counts.update(delivered=len(accepted), rejected=len(rejected))
            for distinct_id, update in reversed(self._in_flight.items()):
                if distinct_id in self._waiting:
                    self._counts["superseded"] += 1
                else:
                    self._waiting[distinct_id] = update
                    self._waiting.move_to_end(distinct_id, last=False)
                    self._bytes += len(update.json)
            self._in_flight.clear()
            self._keep_bounds()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._keep_bounds()

    def kept(self) -> int:
        return 0

    def counts(self) -> Counter[str]:
        with self._lock:
            return self._counts.copy()

    def _keep_bounds(self) -> None:
        # What is in flight has its place, too, but never keeps the newest out.
        bound = 0 if self._closed else max(1, self._max_pending - len(self._in_flight))
        while len(self._waiting) > bound:
            self._know(self._remove(next(iter(self._waiting)), "dropped"), -inf)
            if not self._closed:
                self._report.lose(FULL)

    def _remove(self, distinct_id: str, fate: str = "") -> Update:
        update = self._waiting.pop(distinct_id)
        self._bytes -= len(update.json)
        if fate:
            self._counts[fate] += 1
        return update

    def _know(self, update: Update, until: float) -> None:
        """Note until when a state counts as known, unless there is a newer one."""
        key, known, _ = self._known.get(update.distinct_id) or UNKNOWN
        if known == update.fingerprint:
            self._known[update.distinct_id] = (key, known, until)
