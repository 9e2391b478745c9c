"""One transaction that changes an outbox in PostgreSQL.

Guarantee: the counts change in the transaction that changes the messages. It takes as many round trips for one message
as for many.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from math import inf

from flagsync._clock import monotonic
from flagsync._outbox.contract import Destination, Message, Repeat
from flagsync._outbox.judge import ALL_COUNTS, Fate, Judge, Known, Tally
from flagsync._outbox.postgres import schema as sql
from flagsync._outbox.postgres.rows import Rows, as_bytes, columns, digest_of
from flagsync._postgres.database import EmptyError, Transaction

NEVER = -inf  # seconds since 1970


class Change:
    """A change to an outbox whose row is locked: nobody else writes.

    Args:
        transaction: A transaction in which nothing has happened yet.
        process: The name of this process's account.
        boot: The number of this host's boot.

    Attributes:
        store: The number of the store.
        now: The time by the server's clock.
        remembered: How many messages were remembered before this change.
    """

    def __init__(self, transaction: Transaction, process: str, boot: int) -> None:
        self._transaction, self._process, self._boot = transaction, process, boot
        if not (rows := transaction.rows(sql.LOCK)):
            raise EmptyError("PostgreSQL: the table outbox_store has lost its row")
        [[self.store, self._last_version, self._last_account]] = rows
        [[self.now, account, self.remembered]] = transaction.rows(sql.STATE, process)
        self._clock, self._account = monotonic(), account or 0
        self._tally, self._firsts = Tally(), Counter[int]()  # by destination
        self._numbers: dict[Destination, int] = {}
        self._pending: dict[int, int] = {}  # before this change, by destination

    def add(self, messages: Sequence[Message]) -> None:
        """Store messages in their order. One without a body was sent already, and is only remembered."""
        if messages:
            judge, rows = self._judge(), Rows(self._transaction, self._boot, messages, self._last_version)
            for message in messages:
                self._add(judge, rows, message)
            rows.write()
            self._last_version = rows.last_version

    def confirm(self, repeats: Sequence[Repeat]) -> list[Repeat]:
        """Note the evaluations that repeats of different keys match; return the repeats that match none."""
        if not repeats:
            return []
        judge, rows, new = self._judge(), Rows(self._transaction, self._boot, repeats), list[Repeat]()
        for repeat in repeats:
            number, digest = self._number(repeat.destination), digest_of(repeat.destination, repeat.key)
            fate = judge.confirm(repeat, rows.known.get(digest))
            if fate is Fate.NEW:
                new.append(repeat)
            elif fate is Fate.TOUCHES:
                rows.touch(number, digest, judge.moment(repeat.evaluated_at), repeat)
        rows.write()
        return new

    def drop_beyond(self, max_pending: int, limit: int) -> None:
        """Drop some of the oldest waiting messages beyond a bound, of the destinations that got new ones."""
        for number in self._numbers.values():
            excess = self._pending[number] + self._tally.pending[number] - max_pending
            if excess > 0:
                rows = self._transaction.rows(sql.OVER_BOUND, number, number, min(excess, limit))
                for account, replaces, count, last in rows:
                    self._tally.count(account, "dropped", count, is_event=not replaces)
                    self._tally.pending[number] -= count
                    self.note_first(number, last + 1)

    def settle(self, number: int, messages: Collection[Message], outcome: str, accepted_at: float) -> None:
        """Settle messages of a destination that still have the version that was sent."""
        if messages:
            versions = [message.version for message in messages]
            rows = self._transaction.rows(sql.SETTLE, number, versions, accepted_at)
            for account, replaces, count, _ in rows:
                self._tally.count(account, outcome, count, is_event=not replaces)
                self._tally.pending[number] -= count
            self._tally.remembered[number] += rows[0][3] if rows else 0  # each row has it

    def postpone(self, number: int, messages: Collection[Message]) -> None:
        """Put messages of a destination that still have the version that was sent behind all others."""
        if messages:
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
        outcomes = self._tally.outcomes
        if accounts := {account for account, _ in outcomes}:
            counts = [(account, *(outcomes[account, name] for name in ALL_COUNTS)) for account in accounts]
            self._transaction.run(sql.COUNT_MESSAGES, self._account, self.now, *columns(counts))
        pending, remembered = self._tally.pending, self._tally.remembered
        if numbers := {*pending, *remembered, *self._firsts}:
            rows = [(number, pending[number], remembered[number], self._firsts[number]) for number in numbers]
            self._transaction.run(sql.COUNT_DESTINATIONS, *columns(rows))
        self._transaction.run(sql.FINISH, self._last_version, self._last_account)

    def _add(self, judge: Judge, rows: Rows, message: Message) -> None:
        number, digest = self._number(message.destination), digest_of(message.destination, message.key)
        row, moment = rows.known.get(digest), judge.moment(message.evaluated_at)
        fate = judge.add(number, message, row)
        if fate is Fate.TOUCHES:
            rows.touch(number, digest, moment, message)
        if fate in (Fate.UNCHANGED, Fate.TOUCHES, Fate.SUPERSEDED):
            return
        if fate is Fate.REPLACES and row is not None and row.waits:
            rows.remove(number, row.version)
        rows.last_version += 1
        when = self._boot, message.evaluated_at, message.evaluation
        accepted = message.fingerprint, NEVER if message.body else self.now
        owner = message.resend_after_seconds, self._account
        known = Known(rows.last_version, *when, *accepted, *owner, bool(message.body), moment)
        if message.body:
            rows.wait(number, digest, known, message)
        if fate is not Fate.PRECEDES:
            rows.note(number, digest, known)

    def _judge(self) -> Judge:
        if not self._account:
            self._account = self._last_account = self._last_account + 1
            self._transaction.run(sql.NEW_ACCOUNT, self._account, self._process, self.now)
        return Judge(self._tally, account=self._account, now=self.now, clock=self._clock, boot=self._boot)

    def _number(self, destination: Destination) -> int:
        if destination not in self._numbers:
            where = [as_bytes(part) for part in destination]
            rows = self._transaction.rows(sql.DESTINATION, *where)
            if not rows:
                rows = self._transaction.rows(sql.NEW_DESTINATION, *where)
            [[number, pending]] = rows
            self._numbers[destination], self._pending[number] = number, pending
        return self._numbers[destination]
