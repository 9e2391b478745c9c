"""What a backend knows of the messages of this process, also after the store was removed.

Guarantee: each message that the process has stored keeps its outcome in the statistics.
"""

from flagsync._outbox.backend import Status, Totals
from flagsync._outbox.contract import Kept
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger

SILENT_SECONDS = 60.0
FULL = "The outbox has reached its own bound, and the oldest updates in it are dropped"
SILENT = (
    "Updates wait in the outbox, and the process that sends them has shown no sign of life for a minute: it is "
    "suspended or its disk hangs"
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
        """Note that the backend has taken messages over. It may know more, from calls that failed in the end."""
        self._messages.handed_over += messages
        self._events.handed_over += events

    def update(self, status: Status) -> None:
        """Take over a new status."""
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
            self._silence.end("The process that sends updates out of the outbox works again")


class _Account:
    """What a backend knows of one kind of message of this process.

    Attributes:
        present: What the present account knows.
        handed_over: Messages that it has to know.
    """

    def __init__(self) -> None:
        self.present, self.handed_over = Totals(), 0
        self._past = Totals()  # what former stores and accounts knew

    def counts(self) -> dict[str, int]:
        """Return the outcomes of all messages, and how many wait."""
        return {**_sum(self._past, self.own())._asdict(), "pending": self.present.pending}

    def keep(self, outcome: str, new: Totals) -> None:
        """Keep what the former account knew, with an outcome for what waited; the new one knows what came since."""
        own = self.own()
        self._past = _sum(self._past, own._replace(**{outcome: getattr(own, outcome) + own.pending}))
        self.handed_over = new.accepted

    def own(self) -> Totals:
        """Return what the account knows, each message counted once.

        What was handed over again, after a call that failed though it had stored everything, is unchanged or
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
    """Return what became of the messages that are no events."""
    return Totals(*(every - event for every, event in zip(status.own, status.own_events, strict=True)))


def _sum(one: Totals, other: Totals) -> Totals:
    return Totals(*(a + b for a, b in zip(one, other, strict=True)))
