"""The writer of cohorts into Flagsmith: the change log of a store -> stored traits.

Guarantee: every change on the log is written at least once. Of each identity and cohort, what holds last also comes
last, if a server ends a request within ``unsure_seconds`` after its client. An identity that Flagsmith refuses is
rejected alone. ``flush`` and ``close`` return at their deadline, whatever the store does. Boundary: one process writes.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from os import getpid
from time import monotonic
from typing import Self

from flagsmith import Flagsmith

from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sender, Sending
from flagsync._outbox.contract import Destination
from flagsync._process import PerProcess
from flagsync._report import Reporter
from flagsync._rules import require
from flagsync._stats import Ledger
from flagsync._worker import Worker
from flagsync.cohorts.store import ChangeLog
from flagsync.cohorts.trait_writer.change_list import ChangeList
from flagsync.cohorts.trait_writer.flagsmith import Batches, FlagsmithTraits
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.exceptions import DeliveryError

THREAD = "flagsync-traits"
STORE = "store must keep a change log, such as flagsync.cohorts.SQLiteStore"
SERVER_KEY = (
    "flagsmith must have a server-side key ('ser.…'): where clients must not set traits, Flagsmith answers 200 to a "
    "client-side key and drops them"
)
ONE_WRITER = "a store has one TraitWriter at a time: close the other one"


@dataclass(frozen=True, slots=True)
class TraitStats:
    """What became of the changes.

    Attributes:
        pending: Entries of the change log that are not settled, whoever writes them.
        written: Traits that this process has written.
        rejected: Traits that Flagsmith has refused from this process.
        requests: HTTP requests of this process.
        retries: Batches of this process that came after a failed one.
    """

    pending: int
    written: int
    rejected: int
    requests: int
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Writing:
    """How changes are written.

    Attributes:
        pace: When, and how many at a time.
        batches: How many in one request.
        request_seconds: How long a request may take. After each failure in a row the next one gets as much more, up to
            three times this.
        backoff: How long Flagsmith is left alone after a failure.
    """

    pace: Pace = field(default_factory=Pace)
    batches: Batches = field(default_factory=Batches)
    request_seconds: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)


class TraitWriter:
    """A thread that writes who is in which cohort to Flagsmith, for identities that are evaluated elsewhere.

    The first writer of a store writes all members, and from then on what changes. Several processes may have a writer:
    one of them writes, and another one takes over when it ends. Build it after a fork. As a context manager it closes
    itself on exit.

    Args:
        store: The store whose changes are written.
        flagsmith: A client with a server-side key and the URL of the API; or such a key, for Flagsmith's cloud.
        on_error: Called for each incident, in the background thread; must not block.
        writing: How changes are written; the defaults are those of Flagsmith's cloud and of a self-hosted server.

    Raises:
        ValueError: The client has no server-side key, or the store has another writer in this process.
    """

    def __init__(
        self,
        store: ChangeLog,
        flagsmith: Flagsmith | str,
        *,
        on_error: Callable[[DeliveryError], None] | None = None,
        writing: Writing = Writing(),
    ) -> None:
        client = Flagsmith(environment_key=flagsmith) if isinstance(flagsmith, str) else flagsmith
        session = getattr(client, "session", None)  # there is none in offline mode
        headers = {name: str(value) for name, value in session.headers.items()} if session else {}
        is_server_key = headers.get("X-Environment-Key", "").startswith("ser.")
        require({STORE: isinstance(store, ChangeLog), SERVER_KEY: is_server_key})
        registration = _register(store)
        self._store, self._pid, self._report, self._ledger = store, getpid(), Reporter(on_error), Ledger()
        self._traits = traits = FlagsmithTraits(headers, client.session.proxies, writing.batches)
        self._list = changes = ChangeList(
            store,
            Destination(client.api_url),
            traits,
            ledger=self._ledger,
            report=self._report,
            pace=writing.pace,
        )

        def end() -> None:
            traits.close()
            changes.close()
            registration.end()

        self._sender = Sender(
            changes,
            traits,
            on_end=end,
            ledger=self._ledger,
            report=self._report,
            sending=Sending(
                thread=THREAD,
                service="Flagsmith",
                request_seconds=writing.request_seconds,
                look_seconds=writing.pace.interval_seconds,
                backoff=writing.backoff,
            ),
        )
        weakref.finalize(self, _stop, self._sender, self._pid).atexit = False
        self._sender.worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until what was applied before the call is written or rejected; False after the timeout."""
        deadline = monotonic() + timeout_seconds
        if self._is_elsewhere():
            return False
        if self._sender.worker.is_ended:
            return self._is_drained(deadline)
        return self._sender.flush(deadline)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Write what is on the change log, and end; False if something is left for the next writer. Idempotent."""
        deadline = monotonic() + timeout_seconds
        if self._pid != getpid():
            return False
        self._list.set_deadline(deadline)
        self._sender.stop(deadline)
        self._sender.finish()
        if self._sender.worker.is_current():
            return False
        self._sender.worker.run()  # by hand, if no thread started because Python exits
        return self._sender.worker.join(deadline) and self._is_drained(deadline)

    def stats(self) -> TraitStats:
        """Return the progress so far. The store is asked, which may block.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """
        pending, counts = self._store.pending(), self._ledger.counts()
        return TraitStats(
            pending, counts["delivered"], counts["rejected"], self._traits.requests, counts["retries"]
        )

    def _is_elsewhere(self) -> bool:
        """Return whether the thread cannot be waited for: it is the parent's, or runs this very call."""
        return self._pid != getpid() or self._sender.worker.is_current()

    def _is_drained(self, deadline: float) -> bool:
        """Return whether the log of a writer that has ended is empty; False at the deadline, if the store hangs."""
        answers = list[bool]()

        def ask() -> None:
            answers.append(self._list.is_drained())
            self._report.report_deferred()

        worker = Worker(f"{THREAD}-end", ask, self._report)
        if not worker.start():
            worker.run()
        return worker.join(deadline) and answers == [True]


class _Registration:
    """That a store has a writer in this process. Stores are told apart by identity only."""

    def __init__(self, store: ChangeLog) -> None:
        self.store = store

    def end(self) -> None:
        """Let the store have another writer."""
        _registered.get().remove(self)


_registered: PerProcess[list[_Registration]] = PerProcess(lambda _: [])


def _register(store: ChangeLog) -> _Registration:
    """Raise ``ValueError`` if a store has a writer already."""
    own, registered = _Registration(store), _registered.get()
    registered.append(own)  # before looking, so that of two threads at most one goes on
    is_first = next(other for other in [*registered] if other.store is store) is own
    if not is_first:
        own.end()
    require({ONE_WRITER: is_first})
    return own


def _stop(sender: Sender, pid: int) -> None:
    """Stop the writer that nobody has any more; in a forked child it is the parent's. Takes no lock."""
    if pid == getpid():
        sender.stop(float("-inf"))
