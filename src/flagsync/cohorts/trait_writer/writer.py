"""Writes cohorts to Flagsmith: the change log of an environment -> stored traits.

Guarantee: every change on the log is written at least once. The last state of each identity and cohort is also written
last, if the server ends a request within the time that ``Pace`` assumes. An identity that Flagsmith refuses is rejected
alone. ``flush`` and ``close`` return at their deadline, whatever the store does. Boundary: one process writes for each
environment.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from flagsmith import Flagsmith

from flagsync._clock import monotonic
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sender, Sending
from flagsync._outbox.contract import Destination
from flagsync._process import ProcessId, this_process
from flagsync._report import Reporter
from flagsync._rules import is_instance_of, key_fault, require
from flagsync._stats import Ledger
from flagsync._worker import Worker
from flagsync.cohorts.environment import Environment
from flagsync.cohorts.store import ChangeLogs
from flagsync.cohorts.trait_writer.batch_size import Batches
from flagsync.cohorts.trait_writer.change_list import ChangeList
from flagsync.cohorts.trait_writer.flagsmith import FlagsmithTraits
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.registration import register
from flagsync.exceptions import DeliveryError

THREAD = "flagsync-traits"
STORE = "store must keep a change log, such as flagsync.cohorts.SQLiteStore"
SERVER_KEY = (
    "flagsmith must have a server-side key ('ser.…'): where clients may not set traits, Flagsmith answers 200 to a "
    "client-side key and drops them"
)


@dataclass(frozen=True, slots=True)
class TraitStats:
    """What became of the changes.

    Attributes:
        pending: Changes that are not settled, whoever writes them: not written yet, set aside because Flagsmith fails
            on them, or to be written once more after a request without an answer.
        written: Traits that this process has written.
        rejected: Traits that Flagsmith has refused from this process, or cannot store.
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
        pace: When, and when again.
        batches: How many in one request.
        request_seconds: How long a request may take. Each failure in a row adds as much again for the next one, up to
            three times this.
        backoff: How long Flagsmith is left alone after a failure.
        clock: Returns the time in seconds, to measure requests.
    """

    pace: Pace = field(default_factory=Pace)
    batches: Batches = field(default_factory=Batches)
    request_seconds: float = 30.0
    backoff: Backoff = field(default_factory=Backoff)
    clock: Callable[[], float] = monotonic

    @property
    def sending(self) -> Sending:
        """How the sender behaves."""
        return Sending(
            thread=THREAD,
            service="Flagsmith",
            request_seconds=self.request_seconds,
            look_seconds=self.pace.interval_seconds,
            backoff=self.backoff,
        )


class TraitWriter:
    """A thread that writes who is in which cohort to Flagsmith, for identities that are evaluated elsewhere.

    The first writer for an environment writes all members, and from then on what changes; a store may have writers for
    several environments. Several processes may have a writer for the same one: one of them writes, and another one
    takes over when it ends. Build it after a fork. As a context manager it closes itself on exit.

    Args:
        store: The store whose changes are written.
        flagsmith: A client with a server-side key and the URL of the API; or such a key, for Flagsmith's cloud. Its
            headers, proxies and certificates are used.
        on_error: Called for each incident, in the background thread; must not block.
        writing: How changes are written; the defaults are those of Flagsmith's cloud and of a self-hosted server.

    Raises:
        ValueError: The client has no server-side key, or the store has another writer for it in this process.
    """

    def __init__(
        self,
        store: ChangeLogs,
        flagsmith: Flagsmith | str,
        *,
        on_error: Callable[[DeliveryError], None] | None = None,
        writing: Writing = Writing(),
    ) -> None:
        fault = key_fault(flagsmith.strip()) if isinstance(flagsmith, str) else ""
        environment = Environment.of(flagsmith)
        require(
            {
                STORE: is_instance_of(store, ChangeLogs),
                f"flagsmith must be a configured client, or an environment key, not {fault}": not fault,
                SERVER_KEY: environment.has_server_key,
            }
        )
        self._log = store.change_log(environment.name)
        registration = register(store, environment.name)
        self._process, self._report, self._ledger = this_process(), Reporter(on_error), Ledger()
        self._traits = traits = FlagsmithTraits(environment, self._report, writing.batches, writing.clock)
        self._list = changes = ChangeList(
            self._log,
            Destination(environment.url),
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
            sending=writing.sending,
        )
        weakref.finalize(self, _stop, self._sender, self._process).atexit = False
        self._sender.worker.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Wait until all changes applied before the call are certainly written or rejected; False after the timeout.

        A change whose request got no answer is certain once it was written again, at least half a minute later.
        """
        deadline = monotonic() + timeout_seconds
        if self._is_elsewhere():
            return False
        if self._sender.worker.is_ended:
            return self._is_drained(deadline)
        return self._sender.flush(deadline)

    def close(self, timeout_seconds: float = 5.0) -> bool:
        """Write what is on the change log, and end; False if something is left for the next writer. Idempotent."""
        deadline = monotonic() + timeout_seconds
        if self._process != this_process():
            return False
        self._list.set_deadline(deadline)
        self._sender.stop(deadline)
        self._sender.finish()
        if self._sender.worker.is_current():
            return False
        self._sender.worker.start_or_run()
        return self._sender.worker.join(deadline) and self._is_drained(deadline)

    def resync(self) -> None:
        """Have all traits written again as they are now, including ``False`` for those who left a cohort.

        Call it when Flagsmith may have lost what was written: its database was restored, or browsers have written old
        traits back. It returns at once; ``flush`` waits. Any process may call it, even if another one writes.

        Raises:
            StoreUnavailableError: The store cannot be written to now.
        """
        self._log.restart()

    def stats(self) -> TraitStats:
        """Return the progress so far. It asks the store, which may block.

        Raises:
            StoreUnavailableError: The store cannot be read now.
        """
        pending, counts = self._log.pending(), self._ledger.counts()
        return TraitStats(
            pending, counts["delivered"], counts["rejected"], self._traits.requests, counts["retries"]
        )

    def _is_elsewhere(self) -> bool:
        """Return whether the thread cannot be waited for: it is the parent's, or runs this very call."""
        return self._process != this_process() or self._sender.worker.is_current()

    def _is_drained(self, deadline: float) -> bool:
        """Return whether the log of a writer that has ended is empty; False at the deadline, if the store hangs."""
        answers = list[bool]()

        def ask() -> None:
            answers.append(self._list.is_drained())
            self._report.report_deferred()

        worker = Worker(f"{THREAD}-end", ask, self._report)
        worker.start_or_run()
        return worker.join(deadline) and answers == [True]


def _stop(sender: Sender, process: ProcessId) -> None:
    """Stop a garbage-collected writer, unless it is the parent's, in a forked child. Takes no lock."""
    if process == this_process():
        sender.stop(float("-inf"))
