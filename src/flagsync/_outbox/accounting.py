"""Keeps the statistics of this process in line with its backend, even if the store is removed.

Guarantee: each message that the process has stored counts once in the statistics, also if its store is moved away and
back.
"""

from math import inf
from typing import NamedTuple

from flagsync._clock import monotonic
from flagsync._outbox.backend import Status, Totals
from flagsync._outbox.contract import Kept
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
    """Keeps the ledger up to date with what a backend says.

    Attributes:
        status: What it said last.
        waits_since: When the message that is first in line there was evaluated: ``time.monotonic()``; ``inf`` if none
            waits.
        silence: The process that sends shows no sign of life.
    """

    def __init__(self, ledger: Ledger, report: Reporter) -> None:
        self._ledger, self._report, self.silence = ledger, report, Outage(report)
        self._messages, self._events = _Accounts(), _Accounts()
        self.status, self.waits_since = Status(), inf

    @property
    def pending(self) -> Kept:
        """Messages of this process that wait in the store, also those of which no status has told yet."""
        return Kept(self._messages.kept, self._events.kept)

    def note_stored(self, messages: int, events: int = 0) -> None:
        """Note that the backend has stored messages. It may know more, from calls that failed afterwards."""
        self._messages.handed_over += messages
        self._events.handed_over += events

    def update(self, status: Status) -> None:
        """Apply a new status."""
        before, self.status = self.status, status
        self.waits_since = monotonic() - status.oldest_seconds if status.pending else inf
        is_other_store = before.store and status.store != before.store
        is_other_account = not is_other_store and before.account and status.account != before.account
        lost = before.own.pending if is_other_store else 0
        others = status.own.without(status.own_events)
        for accounts, totals in ((self._messages, others), (self._events, status.own_events)):
            if is_other_store:
                accounts.change_store(before, status, totals)
            elif is_other_account:
                accounts.close(totals)
            accounts.current = totals
        if lost:
            self._report.count_loss("The outbox was removed or emptied", lost)
        elif not (is_other_store or is_other_account) and (dropped := status.own.dropped - before.own.dropped):
            self._report.count_loss(FULL, dropped)
        self._ledger.set_stored(self._messages.counts(), self._events.counts())
        if status.pending and min(status.silent_seconds, status.oldest_seconds) > SILENT_SECONDS:
            self.silence.begin(SILENT)
        else:
            self.silence.end("The process that sends updates from the outbox works again")


class _Accounts:
    """The accounts of this process for one kind of message: the current one, and those in former stores.

    Attributes:
        current: Totals of the current account.
        handed_over: Messages that the current account must know.
    """

    def __init__(self) -> None:
        self.current, self.handed_over = Totals(), 0
        self._closed = Totals()  # of accounts that their store has forgotten
        self._former: dict[int, Former] = {}  # by the number of the store

    @property
    def kept(self) -> int:
        """Messages that wait, with those that were handed over since the last status."""
        return self.current.pending + max(0, self.handed_over - self.current.accepted)

    def counts(self) -> dict[str, int]:
        """Return the outcomes of all messages, and how many are pending."""
        totals = _sum(self._closed, *(former.totals for former in self._former.values()), self._own())
        return {**totals._asdict(), "pending": self.current.pending}

    def close(self, new: Totals) -> None:
        """Continue with a new account: the store has forgotten the current one, as all its messages were delivered."""
        own = self._own()
        self._closed = _sum(self._closed, own._replace(delivered=own.delivered + own.pending))
        self.handed_over = new.accepted

    def change_store(self, before: Status, status: Status, new: Totals) -> None:
        """Continue in another store, with the account that it still has if it was moved away and back."""
        own, twice = self._own(), max(0, self.current.accepted - self.handed_over)
        totals = own._replace(dropped=own.dropped + own.pending)
        self._former[before.store] = Former(before.account, totals, twice)
        self.handed_over = new.accepted
        if (former := self._former.pop(status.store, None)) is not None:
            if former.account == status.account:
                self.handed_over -= former.twice
            else:
                self._closed = _sum(self._closed, former.totals)

    def _own(self) -> Totals:
        """Return the totals of the current account, with each message counted once.

        A call may fail although it has stored everything. Its messages are then stored again, and count as unchanged or
        superseded the second time.
        """
        own = self.current
        twice = max(0, own.accepted - self.handed_over)
        unchanged = min(twice, own.unchanged)
        superseded = min(twice - unchanged, own.superseded)
        return own._replace(
            accepted=own.accepted - unchanged - superseded,
            unchanged=own.unchanged - unchanged,
            superseded=own.superseded - superseded,
        )


def _sum(*totals: Totals) -> Totals:
    return Totals(*map(sum, zip(*totals, strict=True)))
