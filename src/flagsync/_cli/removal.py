"""Removes properties from profiles: what ``flagsync unset`` does with rows.

Guarantee: a profile loses the named properties and nothing else. Boundary: what is not sent when the process ends is
lost; the same rows may be sent again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from flagsync._clock import monotonic
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.mixpanel import MixpanelApi
from flagsync._delivery.sender import Sender
from flagsync._encoding.distinct_id import NotMirrored, distinct_id_of
from flagsync._encoding.envelope import Records
from flagsync._outbox.contract import Destination, Limits, Message
from flagsync._outbox.memory import MemoryOutbox
from flagsync._report import Reporter
from flagsync._stats import Ledger
from flagsync.bulk.report import Result
from flagsync.bulk.rows import Row
from flagsync.bulk.settling import Settling
from flagsync.exceptions import DeliveryError


class Removal:
    """Sends records that remove properties; see ``flagsync.bulk.window.Target``.

    Args:
        token: The token of the Mixpanel project.
        destination: Where the records go.
        names: The names of the properties.
        dry_run: Whether to send nothing.
    """

    is_closed = False

    def __init__(self, token: str, destination: Destination, names: Sequence[str], *, dry_run: bool) -> None:
        limits, ledger, report = Limits(flush_interval_seconds=0.05), Ledger(), Reporter(None)
        self.max_rows = limits.max_pending
        self.success: Result = "evaluated" if dry_run else "delivered"
        self._destination, self._names, self._is_dry = destination, names, dry_run
        self._records, self._report, api = Records(token), report, MixpanelApi()
        self._outbox = MemoryOutbox(limits, ledger, report)
        self._sender = Sender(self._outbox, api, on_end=api.close, ledger=ledger, report=report)

    def distinct_id(self, identifier: str) -> str | NotMirrored:
        return distinct_id_of(identifier, str)

    def submit(self, row: Row, distinct_id: str) -> str:  # noqa: ARG002 - traits do not matter
        if not self._is_dry:
            record, now = self._records.people_unset(distinct_id, self._names), monotonic()
            # All records have the same content, and so the same fingerprint.
            self._outbox.put(Message(distinct_id, b"", record, now, self._destination, 0.0))
        return ""

    def settle(self) -> Settling | None:
        if self._is_dry:
            return None
        self._sender.worker.start()
        self._sender.worker.wake()
        return Settling(self)

    def flush(self, deadline: float, *, unless_misconfigured: bool) -> bool:
        return self._sender.flush(deadline, unless_misconfigured=unless_misconfigured)

    def obstacle(self) -> DeliveryError:
        why = self._sender.failure or Answer(Outcome.UNAVAILABLE)
        return DeliveryError(why.reason, len(self._outbox), misconfigured=True, answer=why.text)

    @contextmanager
    def followed_by(self, reject: Callable[[str, str], bool]) -> Iterator[None]:
        def follow(distinct_id: str, reason: str) -> None:
            reject(distinct_id, reason)

        self._report.followers = (follow,)
        yield
        self._report.followers = ()

    def counts(self) -> tuple[int, int]:
        return 0, 0  # each record is sent, and each refusal is told

    def close(self) -> None:
        """End the thread."""
        self._sender.stop(monotonic())
        if self._sender.worker.is_started:
            self._sender.worker.join(monotonic() + 1.0)
