"""The writer of cohorts into Flagsmith: the store's list of changes -> stored traits.

Guarantee: every change on the list is written at least once; of each identity and cohort, what holds last also
comes last, if a server ends a request in ``UNSURE_SECONDS`` after its client; an identity that Flagsmith
refuses is rejected alone. Boundary: one process of a host writes.
"""

import weakref
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from os import getpid
from threading import Thread
from time import monotonic
from typing import Self

from flagsmith import Flagsmith

from flagsync._config import require
from flagsync._outbox import Destination, Update
from flagsync._report import Reporter
from flagsync._sender import Sender
from flagsync.cohorts._flagsmith import MAX_BULK, Traits, as_json
from flagsync.cohorts._store import STORE, MembershipStore, TraitChange
from flagsync.exceptions import DeliveryError

INTERVAL_SECONDS, REQUEST_SECONDS, MIN_BATCH = 1.0, 30.0, 10
# So long may a server go on with a request whose client has given up or died.
UNSURE_SECONDS = 30.0
SERVER_KEY = (
    "flagsmith has a server-side key ('ser.…'): where clients must not set traits, Flagsmith answers 200 to a "
    "client-side key and drops them"
)


@dataclass(frozen=True, slots=True)
class TraitStats:
    """What became of the changes.

    Attributes:
        pending: Entries of the list that are not settled, whoever writes them.
        written: Traits that this process has written.
        rejected: Traits that Flagsmith refuses, of this process.
        requests: HTTP requests of this process.
        retries: Batches of this process that came after a failed one.
    """

    pending: int
    written: int
    rejected: int
    requests: int
    retries: int


class TraitWriter:
    """A thread that writes who is in which cohort to Flagsmith, for identities that are evaluated elsewhere.

    The first writer of a store writes all members; from then on, what changes. Several processes may have one:
    one of a host writes, and another takes over when it ends. Build it after a fork. A context manager.

    Args:
        store: Whose changes are written.
        flagsmith: A client with a server-side key and the URL of the API; or such a key, for Flagsmith's cloud.
        on_error: Called for each incident, in the thread; must not block.

    Raises:
        ValueError: The client has no server-side key.
    """

    def __init__(
        self,
        store: MembershipStore,
        flagsmith: Flagsmith | str,
        *,
        on_error: Callable[[DeliveryError], None] | None = None,
    ) -> None:
        client = Flagsmith(environment_key=flagsmith) if isinstance(flagsmith, str) else flagsmith
        session = getattr(client, "session", None)  # there is none in offline mode
        headers = {name: str(value) for name, value in session.headers.items()} if session else {}
        require({STORE: hasattr(store, "take")})
        require(
            {
                SERVER_KEY: headers.get("X-Environment-Key", "").startswith("ser."),
                "a store has one TraitWriter at a time: close the other one": _writing.get(store) != getpid(),
            }
        )
        report = Reporter(on_error)
        self._store, self._pid = store, getpid()
        self._traits = traits = Traits(headers, client.session.proxies)
        self._list = _ChangeList(store, client.api_url, traits, report)

        def end() -> None:
            traits.close()
            store.resign()
            _writing.pop(store, None)

        self._sender = Sender(
            self._list,
            traits.post,
            end,
            report,
            INTERVAL_SECONDS,
            service="Flagsmith",
            request_seconds=REQUEST_SECONDS,
        )
        weakref.finalize(self, _stop, self._sender, self._pid).atexit = False
        _writing[store] = self._pid
        Thread(target=self._sender.run, name="flagsync-traits", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until what was applied before the call is written or rejected; False at the deadline."""
        deadline = monotonic() + timeout_seconds
        return self._pid == getpid() and self._list.complete(deadline) and self._sender.flush(deadline)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Write what is on the list and end; False if something is left, for the next writer. Idempotent."""
        if self._pid != getpid():
            return False
        deadline = monotonic() + timeout_seconds
        self._list.complete(deadline)
        self._sender.stop(deadline)
        self._sender.finish()
        self._sender.join(deadline)
        return self._list.oldest() is None

    def stats(self) -> TraitStats:
        """Progress; raises ``StoreUnavailableError`` if the store cannot be asked."""
        counts, retries = self._list.counts, self._sender.counts["retries"]
        pending, requests = self._store.pending(), self._traits.requests
        return TraitStats(pending, counts["written"], counts["rejected"], requests, retries)


class _ChangeList:
    """The list of a store as a sender takes from it: the numbers on the list are its time."""

    shared = True

    def __init__(self, store: MembershipStore, url: str, traits: Traits, report: Reporter) -> None:
        self._store, self._destination, self._report = store, Destination(url), report
        self._traits = traits
        self._in_flight = dict[bytes, TraitChange]()
        self._limit, self._failing = MAX_BULK, False
        self._writes_from: float | None = None  # known once this process is elected
        self.counts = Counter(written=0, rejected=0)

    def complete(self, deadline: float) -> bool:
        """Put all on the list that belongs there; False at the deadline."""
        with self._guard(write=True):
            self._store.list_changes()
            while self._store.sweep():
                if monotonic() >= deadline:
                    return False
            return True
        return False

    @property
    def newest(self) -> float:
        with self._guard():
            _, last = self._store.bounds() or (0, 0)
            return last
        return float("inf")

    def oldest(self) -> float | None:
        with self._guard():
            bounds = self._store.bounds()
            return bounds[0] if bounds else None
        return 0.0

    def full(self) -> bool:
        return self.newest - (self.oldest() or 0.0) >= self._limit

    def waiting(self) -> bool:
        """Whether there is something to take: reads only, since the sender's lock is held."""
        with self._guard():
            return self._may_write() and self._store.bounds() is not None
        return False

    def take(self, resting: Container[Destination] = ()) -> list[Update]:
        self._in_flight = {}
        if self._destination not in resting and self.waiting() and self.complete(float("inf")):
            suspects, limit = self._traits.suspects, min(self._limit, self._traits.limit)
            with self._guard(write=True):
                found = {as_json(change): change for change in self._store.take(limit + len(suspects))}
                good = [json for json in found if json not in suspects]
                self._in_flight = {json: found[json] for json in (good or [*found])[:limit]}
        return [
            Update(change.identifier, b"", json, change.numbers[0], self._destination)
            for json, change in self._in_flight.items()
        ]

    def settle(self, accepted: Collection[Update], rejected: Collection[Update]) -> None:
        changes, self._in_flight = self._in_flight, {}
        # A server that does not manage so many in its time manages less.
        settled = len(accepted) + len(rejected)
        self._limit = min(MAX_BULK, self._limit * 2) if settled else max(MIN_BATCH, len(changes) // 2)
        self.counts.update(written=len(accepted), rejected=len(rejected))
        if self._traits.unsure:
            self._writes_from = monotonic() + UNSURE_SECONDS
        with self._guard(write=True):  # what it cannot take off the list now is written once more
            ended = [changes[update.json] for update in (*accepted, *rejected)]
            self._store.settle(ended, sure=not self._traits.unsure)

    def _may_write(self) -> bool:
        """Whether it is this process that writes, and nothing may overtake what it writes."""
        if self._writes_from is None and self._store.is_elected():
            self._writes_from = monotonic() + (UNSURE_SECONDS if self._store.is_unsure() else 0.0)
        return self._writes_from is not None and monotonic() >= self._writes_from

    @contextmanager
    def _guard(self, *, write: bool = False) -> Iterator[None]:
        """What the store cannot do now is reported, once, until it can be written to again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001 - a store may raise anything, the thread goes on
            if not self._failing:
                self._failing = True
                self._report.say(f"The store of cohorts cannot be used ({type(error).__name__}): traits wait")
        else:
            if self._failing and write:
                self._failing = False
                self._report.say("The store of cohorts is in use again")


def _stop(sender: Sender, pid: int) -> None:
    """End a writer that nobody has any more; in a forked child it is the parent's."""
    if pid == getpid():
        sender.stop(float("-inf"))


_writing: weakref.WeakKeyDictionary[MembershipStore, int] = weakref.WeakKeyDictionary()  # by which process
