"""One transaction that changes an outbox in PostgreSQL.

Guarantee: the counts change in the transaction that changes the messages. It takes as many round trips for one message
as for many.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from math import inf
from typing import NamedTuple

from flagsync._clock import monotonic
from flagsync._outbox.contract import Absences, Destination, Message, Repeat
from flagsync._outbox.judge import ALL_COUNTS, Fate, Judge, Known, Tally
from flagsync._outbox.postgres import schema as sql
from flagsync._outbox.postgres.rows import Rows, as_bytes, destination_of, digest_of
from flagsync._postgres.database import EmptyError, Transaction

NEVER = -inf  # seconds since 1970


class Process(NamedTuple):
    """One process: the name of its account, and the number of its host's boot."""

    name: str
    boot: int


class Change:
    """A change to an outbox, whose lock it takes: nobody else writes.

    Args:
        transaction: A transaction in which nothing has happened yet.
        process: This process.

    Attributes:
        store: The number of the store.
        now: The time by the server's clock.
    """

    def __init__(self, transaction: Transaction, process: Process) -> None:
        self._transaction, self._process = transaction, process
        transaction.rows(sql.LOCK)
        self._clock = monotonic()  # no message seems to have waited longer than it has
        if not (rows := transaction.rows(sql.STATE, process.name)):
            raise EmptyError("outbox_store")
        self.now: float = rows[0][0]
        self.store, self._last_version, self._last_account, account = rows[0][1:5]
        self._account = account or 0
        self._destinations = [_Destination._make(row[5:]) for row in rows if row[5]]
        self._numbers = {destination_of(row.url, row.project): row.number for row in self._destinations}
        self._tally, self._firsts = Tally(), Counter[int]()  # by destination

    @property
    def remembered(self) -> int:
        """How many messages were remembered before this change."""
        return sum(row.remembered for row in self._destinations)

    def add(self, messages: Sequence[Message]) -> None:
        """Store messages in their order. One without a body was sent already, and is only remembered."""
        if messages:
            judge, rows = self._judge(), Rows(self._transaction, messages, self._last_version)
            for message in messages:
                self._add(judge, rows, message)
            self._write(rows)
            self._last_version = rows.last_version

    def confirm(self, repeats: Sequence[Repeat]) -> list[Repeat]:
        """Note the evaluations that repeats of different keys match; return the repeats that match none."""
        if not repeats:
            return []
        judge, rows, new = self._judge(), Rows(self._transaction, repeats), list[Repeat]()
        for repeat in repeats:
            self._number(repeat.destination)  # the message comes next
            digest = digest_of(repeat.destination, repeat.key)
            row = rows.known.get(digest)
            fate = judge.confirm(repeat, row)
            if fate is Fate.NEW:
                new.append(repeat)
            elif row is not None and fate is Fate.TOUCHES:
                rows.touch(digest, self._later(row, repeat))
        self._write(rows)
        return new

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        """Keep times by text; return all of a destination."""
        number = self._number(destination)
        self._transaction.run(sql.NOTE_ABSENCES, number, [*absences], [*absences.values()])
        return dict(self._transaction.rows(sql.ABSENCES, number))

    def drop_beyond(self, max_pending: int, limit: int) -> None:
        """Drop some of the oldest waiting messages beyond a bound, of the destinations that got new ones."""
        pending = {row.number: row.pending for row in self._destinations}
        for number, more in [*self._tally.pending.items()]:
            excess = pending.get(number, 0) + more - max_pending
            if more > 0 and excess > 0:
                rows = self._transaction.rows(sql.OVER_BOUND, number, number, min(excess, limit))
                for account, replaces, count, last in rows:
                    self._tally.count(account, "dropped", count, is_event=not replaces)
                    self._tally.pending[number] -= count
                    self.note_first(number, last + 1)

    def settle(self, number: int, messages: Collection[Message], outcome: str, accepted_at: float) -> None:
        """Settle messages of a destination that still have the version that was sent."""
        versions = [message.version for message in messages]
        rows = self._transaction.rows(sql.SETTLE, number, versions, accepted_at)
        for account, replaces, count, _ in rows:
            self._tally.count(account, outcome, count, is_event=not replaces)
            self._tally.pending[number] -= count
        self._tally.remembered[number] += rows[0][3] if rows else 0  # each row has it

    def postpone(self, number: int, messages: Collection[Message]) -> None:
        """Put messages of a destination that still have the version that was sent behind all others."""
        before = [message.version for message in messages]
        later = [*range(self._last_version + 1, self._last_version + 1 + len(before))]
        self._last_version += len(before)
        self._transaction.run(sql.POSTPONE, before, later, number, self._last_version)

    def note_first(self, number: int, version: int) -> None:
        """Note that no message of a destination with a lower version waits, now and ever."""
        self._firsts[number] = max(self._firsts[number], version)

    def forget_some(self, behind: bytes, limit: int, excess: int, accepted_before: float) -> bytes:
        """Look at some remembered messages, and forget those that are too old or too many.

        Returns:
            The digest to continue behind in the next change; an empty one to start again.
        """
        rows = self._transaction.rows(sql.SOME_LATEST, behind, limit)
        remembered = sorted((row for row in rows if not row[3]), key=lambda row: float(row[2]))
        old = [row for place, row in enumerate(remembered) if place < excess or row[2] < accepted_before]
        if old:
            self._transaction.run(sql.FORGET, [digest for digest, *_ in old])
            self._tally.remembered.subtract(number for _, number, *_ in old)
        return bytes(rows[-1][0]) if len(rows) == limit else b""

    def forget_tails(self, limit: int) -> None:
        """Delete some tails that no message has any more."""
        self._transaction.run(sql.UNUSED_TAILS, self._last_version, limit)

    def close_accounts(self, used_before: float, limit: int) -> None:
        """Merge some idle accounts without pending messages into the account of former processes."""
        self._transaction.run(sql.CLOSE_ACCOUNTS, used_before, self._account, limit)

    def finish(self) -> None:
        """Write the counts."""
        outcomes, pending, remembered = self._tally.outcomes, self._tally.pending, self._tally.remembered
        accounts = {account for account, _ in outcomes} | ({self._account} - {0})
        names = tuple(name for name in ALL_COUNTS if any(outcomes[account, name] for account in accounts))
        numbers = {*pending, *remembered, *self._firsts}
        self._transaction.run(
            sql.finish(names),
            self._account,
            self.now,
            [*accounts],
            *([outcomes[account, name] for account in accounts] for name in names),
            [*numbers],
            *([counter[number] for number in numbers] for counter in (pending, remembered, self._firsts)),
            self._last_version,
            self._last_account,
        )

    def _add(self, judge: Judge, rows: Rows, message: Message) -> None:
        number, digest = self._number(message.destination), digest_of(message.destination, message.key)
        row = rows.known.get(digest)
        fate = judge.add(number, message, row)
        if row is not None and fate is Fate.TOUCHES:
            rows.touch(digest, self._later(row, message))
        if fate in (Fate.UNCHANGED, Fate.TOUCHES, Fate.SUPERSEDED):
            return
        if row is not None and row.waits and fate is Fate.REPLACES:
            rows.remove(number, row.version)
        rows.last_version += 1
        when = self._process.boot, message.evaluated_at, message.evaluation
        accepted = message.fingerprint, NEVER if message.body else self.now
        owner = message.resend_after_seconds, self._account
        moment = message.evaluated_at + self._ahead
        known = Known(rows.last_version, *when, *accepted, *owner, bool(message.body), moment)
        if message.body:
            rows.wait(number, digest, known, message)
        if fate is not Fate.PRECEDES:
            rows.note(number, digest, known)

    def _later(self, row: Known, equal: Message | Repeat) -> Known:
        """Return a row with the time of a later evaluation."""
        evaluated_at, evaluation = equal.evaluated_at, equal.evaluation
        moment = evaluated_at + self._ahead
        return row._replace(
            boot=self._process.boot, evaluated_at=evaluated_at, evaluation=evaluation, moment=moment
        )

    def _write(self, rows: Rows) -> None:
        rows.write(self._process.boot, self._account, self.now, self._ahead)

    @property
    def _ahead(self) -> float:
        """How far the server's clock is ahead of this host's."""
        return self.now - self._clock

    def _judge(self) -> Judge:
        if not self._account:
            self._account = self._last_account = self._last_account + 1
            self._transaction.run(sql.NEW_ACCOUNT, self._account, self._process.name, self.now)
        return Judge(
            self._tally, account=self._account, now=self.now, clock=self._clock, boot=self._process.boot
        )

    def _number(self, destination: Destination) -> int:
        if destination not in self._numbers:
            number = max(self._numbers.values(), default=0) + 1
            self._transaction.run(sql.NEW_DESTINATION, number, *map(as_bytes, destination))
            self._numbers[destination] = number
        return self._numbers[destination]


class _Destination(NamedTuple):
    """A row of the table of destinations."""

    number: int
    url: bytes
    project: bytes
    pending: int
    remembered: int
