"""Keeps the statistics of this process in line with its backend, even if the store is removed.

Guarantee: each message that the process has stored counts once in the statistics, also if its store is moved away and
back.
"""

from typing import NamedTuple

from flagsync._outbox.backend import Status, Totals
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger

SILENT_SECONDS = 60.0
FULL = "The outbox has reached its own bound, and the oldest updates in it are dropped"
SILENT = (
    "Updates wait in the outbox, but the process that sends them has shown no sign of life for a minute: it may be "
    "suspended, or its disk may hang"
)


class Former(NamedTuple):
    """What a process had in a store when another one took its place.

    Attributes:
        account: The number of its account.
        totals: What counts meanwhile: what waited there is dropped.
        twice: How many of the messages in the account were stored twice.
    """

    account: int
    totals: Totals
    twice: int


class Accounting:
    """Keeps the ledger up to date with what a backend says."""

    def __init__(self, ledger: Ledger, report: Reporter) -> None:
        self._ledger, self._report, self._silence = ledger, report, Outage(report)
        self._closed = Totals()  # of accounts that their store has forgotten
        self._former: dict[int, Former] = {}  # by the number of the store
        self._handed_over = 0  # messages that the current account must know
        self.status = Status()

    @property
    def pending(self) -> int:
        """Messages of this process that wait in the store."""
        return self.status.own.pending

    def note_stored(self, messages: int) -> None:
        """Note that the backend has stored messages. It may know more, from calls that failed afterwards."""
        self._handed_over += messages

    def update(self, status: Status) -> None:
        """Apply a new status."""
        before, own = self.status, self._own()
        if before.store and status.store != before.store:
            if own.pending:
                self._report.count_loss("The outbox was removed or emptied", own.pending)
            totals = own._replace(dropped=own.dropped + own.pending)
            twice = max(0, before.own.accepted - self._handed_over)
            self._former[before.store] = Former(before.account, totals, twice)
            self._handed_over = status.own.accepted
            self._return_to(status)
        elif before.account and status.account != before.account:
            self._closed = _sum(self._closed, own._replace(delivered=own.delivered + own.pending))
            self._handed_over = status.own.accepted
        elif dropped := status.own.dropped - before.own.dropped:
            self._report.count_loss(FULL, dropped)
        self.status = status
        totals = _sum(self._closed, *(former.totals for former in self._former.values()), self._own())
        self._ledger.set_stored({**totals._asdict(), "pending": status.own.pending})
        if status.pending and min(status.silent_seconds, status.oldest_seconds) > SILENT_SECONDS:
            self._silence.begin(SILENT)
        else:
            self._silence.end("The process that sends updates from the outbox works again")

    def _own(self) -> Totals:
        """Return the totals of the account, with each message counted once.

        A call may fail although it has stored everything. Its messages are then stored again, and count as unchanged or
        superseded the second time.
        """
        own = self.status.own
        twice = max(0, own.accepted - self._handed_over)
        unchanged = min(twice, own.unchanged)
        superseded = min(twice - unchanged, own.superseded)
        return own._replace(
            accepted=own.accepted - unchanged - superseded,
            unchanged=own.unchanged - unchanged,
            superseded=own.superseded - superseded,
        )

    def _return_to(self, status: Status) -> None:
        """Continue with the account in a store that was moved away and back, unless the store has forgotten it."""
        if (former := self._former.pop(status.store, None)) is not None:
            if former.account == status.account:
                self._handed_over -= former.twice
            else:
                self._closed = _sum(self._closed, former.totals)


def _sum(*totals: Totals) -> Totals:
    return Totals(*map(sum, zip(*totals, strict=True)))
