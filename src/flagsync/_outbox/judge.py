"""Decides which message of a key wins, and counts what became of the messages; the same for every store.

Guarantee: of two evaluations on one host the later one wins. Of two hosts the one wins that was later by the clock of
their store, which is right if they are further apart than a call of the store takes.
"""

from collections import Counter
from enum import Enum, auto
from typing import NamedTuple

from flagsync._outbox.backend import Totals
from flagsync._outbox.contract import Message, Repeat

# Counts of all messages, and of those that do not replace others.
COUNTS = Totals._fields
OUTCOMES = COUNTS[1:]  # what may become of what was accepted
ALL_COUNTS = (*COUNTS, *(f"event_{count}" for count in COUNTS))


class Known(NamedTuple):
    """What a store knows of a key.

    Attributes:
        version, evaluated_at, evaluation, fingerprint, resend_after_seconds: As those of the last message.
        boot: The number of the boot whose clock ``evaluated_at`` is of.
        accepted_at: When Mixpanel accepted it, by the clock of the store.
        account: The account of the process that has stored it.
        waits: Whether it still waits.
        moment: When it was evaluated by the clock of the store, if that has one of its own.
    """

    version: int
    boot: int
    evaluated_at: float
    evaluation: int | None
    fingerprint: bytes
    accepted_at: float
    resend_after_seconds: float
    account: int
    waits: int
    moment: float = 0.0


class Fate(Enum):
    """What becomes of a message or of a repeat."""

    UNCHANGED = auto()  # it needs nothing
    TOUCHES = auto()  # unchanged, and evaluated later: its evaluation counts from now on
    SUPERSEDED = auto()  # a later one is known
    REPLACES = auto()  # it takes the place of the last one, if there is one
    FOLLOWS = auto()  # it becomes the last one, and the one before goes on waiting
    PRECEDES = auto()  # it waits, too, but is not the last one
    NEW = auto()  # a repeat of nothing that is known


class Tally:
    """Counts what became of messages.

    Attributes:
        outcomes: Messages, by account and outcome.
        pending: How many more wait now, by destination.
        remembered: How many more are remembered now, by destination.
    """

    def __init__(self) -> None:
        self.outcomes = Counter[tuple[int, str]]()
        self.pending, self.remembered = Counter[int](), Counter[int]()

    def count(self, account: int, outcome: str, number: int = 1, *, is_event: bool) -> None:
        """Count messages of an account."""
        self.outcomes[account, outcome] += number
        if is_event:
            self.outcomes[account, f"event_{outcome}"] += number


class Judge:
    """Decides for the messages of one process, in one change of the store.

    Args:
        tally: Where it counts.
        account: The account of the process.
        now: The time by the clock of the store.
        clock: The time of this host's ``monotonic`` at the same moment.
        boot: The number of this host's boot.
    """

    def __init__(self, tally: Tally, *, account: int, now: float, clock: float, boot: int) -> None:
        self._tally, self._account = tally, account
        self._now, self._clock, self.boot = now, clock, boot

    def add(self, number: int, message: Message, row: Known | None) -> Fate:
        """Decide what becomes of a message of a destination, and count it. One without a body was sent already."""
        is_event, waits = not message.replaces, bool(message.body)
        if waits:
            self._tally.count(self._account, "accepted", is_event=is_event)
        fate = Fate.REPLACES
        if row is not None:
            is_late = self._is_late(message, row)
            if waits and row.fingerprint == message.fingerprint and self._is_current(row, message):
                self._tally.count(self._account, "unchanged", is_event=is_event)
                return Fate.UNCHANGED if is_late else Fate.TOUCHES
            if is_late and (message.replaces or not waits):
                self._tally.outcomes[self._account, "superseded"] += waits
                return Fate.SUPERSEDED
            fate = Fate.PRECEDES if is_late else self._displace(number, message, row)
        (self._tally.pending if waits else self._tally.remembered)[number] += 1
        return fate

    def confirm(self, repeat: Repeat, row: Known | None) -> Fate:
        """Decide what becomes of a repeat, and count it unless it is new."""
        if row is None or row.evaluation != repeat.evaluation or not self._is_current(row, row):
            return Fate.NEW
        self._tally.outcomes[self._account, "accepted"] += 1
        self._tally.outcomes[self._account, "unchanged"] += 1
        return Fate.UNCHANGED if self._is_late(repeat, row) else Fate.TOUCHES

    def moment(self, evaluated_at: float) -> float:
        """Return when something was evaluated on this host, by the clock of the store."""
        return self._now - (self._clock - evaluated_at)

    def _displace(self, number: int, message: Message, row: Known) -> Fate:
        """Count the last message that another one replaces, or keep both."""
        if not row.waits:
            self._tally.remembered[number] -= 1
        elif message.replaces:
            self._tally.outcomes[row.account, "superseded"] += 1
            self._tally.pending[number] -= 1
        else:
            return Fate.FOLLOWS
        return Fate.REPLACES

    def _is_late(self, message: Message | Repeat, row: Known) -> bool:
        """Whether the last message was evaluated later.

        A moment that has not come yet says nothing: the host has booted again, or a clock was set back.
        """
        if row.boot == self.boot:
            return message.evaluated_at < row.evaluated_at <= self._clock
        return self.moment(message.evaluated_at) < row.moment <= self._now

    def _is_current(self, row: Known, equal: Message | Known) -> bool:
        """Whether an equal message need not be sent."""
        return bool(row.waits) or 0 <= self._now - row.accepted_at < equal.resend_after_seconds
