"""Keeps the statistics of this process in line with its backend, even if the store is removed.

Guarantee: each message that the process has stored keeps its outcome in the statistics.
"""

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


class Accounting:
    """Keeps the ledger up to date with what a backend says."""

    def __init__(self, ledger: Ledger, report: Reporter) -> None:
        self._ledger, self._report, self._silence = ledger, report, Outage(report)
        self._messages, self._events = _Account(), _Account()
        self.status = Status()

    @property
    def pending(self) -> Kept:
        """Messages of this process that wait in the store."""
        return Kept(self._messages.present.pending, self._events.present.pending)

    def note_stored(self, messages: int, events: int = 0) -> None:
        """Note that the backend has stored messages. It may know more, from calls that failed afterwards."""
        self._messages.handed_over += messages
        self._events.handed_over += events

    def update(self, status: Status) -> None:
        """Apply a new status."""
        before, self.status = self.status, status
        is_other_store = before.store and status.store != before.store
        outcome = "dropped" if is_other_store else "delivered"
        is_other = is_other_store or (before.account and status.account != before.account)
        lost = 0
        for account, own in ((self._messages, _rest(status)), (self._events, status.own_events)):
            lost += account.own().pending
            if is_other:
                account.keep(outcome, own)
            account.present = own
        if is_other_store and lost:
            self._report.count_loss("The outbox was removed or emptied", lost)
        elif not is_other and (dropped := status.own.dropped - before.own.dropped):
            self._report.count_loss(FULL, dropped)
        self._ledger.set_stored(self._messages.counts(), self._events.counts())
        if status.pending and min(status.silent_seconds, status.oldest_seconds) > SILENT_SECONDS:
            self._silence.begin(SILENT)
        else:
            self._silence.end("The process that sends updates from the outbox works again")


class _Account:
    """The totals of one kind of message of this process, across stores and accounts.

    Attributes:
        present: Totals of the current account.
        handed_over: Messages that the current account must know.
    """

    def __init__(self) -> None:
        self.present, self.handed_over = Totals(), 0
        self._past = Totals()  # totals of former stores and accounts

    def counts(self) -> dict[str, int]:
        """Return the outcomes of all messages, and how many are pending."""
        return {**_sum(self._past, self.own())._asdict(), "pending": self.present.pending}

    def keep(self, outcome: str, new: Totals) -> None:
        """Keep the totals of the former account, with an outcome for its pending messages.

        The new account knows the messages stored since.
        """
        own = self.own()
        self._past = _sum(self._past, own._replace(**{outcome: getattr(own, outcome) + own.pending}))
        self.handed_over = new.accepted

    def own(self) -> Totals:
        """Return the totals of the account, with each message counted once.

        A call may fail although it has stored everything. Its messages are then stored again, and count as unchanged or
        superseded the second time.
        """
        own = self.present
        twice = max(0, own.accepted - self.handed_over)
        unchanged = min(twice, own.unchanged)
        superseded = min(twice - unchanged, own.superseded)
        return own._replace(
            accepted=own.accepted - unchanged - superseded,
            unchanged=own.unchanged - unchanged,
            superseded=own.superseded - superseded,
        )


def _rest(status: Status) -> Totals:
    """Return the totals of the messages that are not events."""
    return Totals(*(every - event for every, event in zip(status.own, status.own_events, strict=True)))


def _sum(one: Totals, other: Totals) -> Totals:
    return Totals(*(a + b for a, b in zip(one, other, strict=True)))
