"""One transaction of an outbox file: it decides which message wins, and keeps the counts.

Guarantee: the counts of the file change in the transaction that changes its messages.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from math import inf
from typing import TypeVar

from flagsync._clock import monotonic, time
from flagsync._files.sqlite import read
from flagsync._outbox import schema as sql
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Absences, Destination, Message, Repeat
from flagsync._outbox.judge import Fate, Judge, Known, Tally
from flagsync._outbox.rows import Rows, escaped

NEVER = -inf  # seconds since 1970

M = TypeVar("M", Message, Repeat)


class Change:
    """The changes to a file while its write lock is held.

    Args:
        file: A connection in a transaction.
        process: The name of this process's account.
    """

    def __init__(self, file: sqlite3.Cursor, process: str) -> None:
        self._file, self._process = file, process
        self._now, self._clock, self._account = time(), monotonic(), 0
        self._tally = Tally()
        self._numbers: dict[Destination, int] = {}
        self._tails: dict[bytes, int] = {}
        self._rows = Rows()

    def add(self, messages: Sequence[Message]) -> None:
        """Store messages of different keys. One without a body was sent already, and is only remembered."""
        for destination, those in _by_destination(messages).items():
            number = self._number(destination)
            known = self._known(number, those)
            judge = self._judge()
            for message in those:
                key = escaped(message.key)
                self._add(judge, number, key, message, known.get(key))
        self._rows.write(self._file)
        self._file.executemany(sql.USE_TAIL, [(number,) for number in self._tails.values()])

    def confirm(self, repeats: Sequence[Repeat]) -> list[Repeat]:
        """Touch the rows that repeats of different keys match; return the repeats that match none."""
        new = list[Repeat]()
        for destination, those in _by_destination(repeats).items():
            known = self._known(self._number(destination), those)
            judge = self._judge()
            for repeat in those:
                row = known.get(escaped(repeat.key))
                fate = judge.confirm(repeat, row)
                if fate is Fate.NEW:
                    new.append(repeat)
                elif fate is Fate.TOUCHES and row is not None:
                    self._rows.touch(row, repeat, judge.boot)
        self._rows.write(self._file)
        return new

    def settle(self, destination: int, messages: Collection[Message], outcome: str, accepted_at: float) -> None:
        """Settle messages that still have the version that was sent."""
        if not messages:
            return
        versions = json.dumps([message.version for message in messages])
        for account, replaces, count, latest in self._file.execute(sql.CLAIMED_OF, (versions,)).fetchall():
            self._tally.count(account, outcome, count, is_event=not replaces)
            self._tally.pending[destination] -= count
            self._tally.remembered[destination] += latest
        self._file.execute(sql.SETTLE_OLDER, (versions,))
        self._file.execute(sql.SETTLE, (accepted_at, versions))

    def postpone(self, messages: Collection[Message]) -> None:
        """Put messages that still have the version that was sent behind all others."""
        for message in messages:
            if self._file.execute(sql.POSTPONE, (message.version,)).rowcount:
                self._file.execute(sql.COUNT_VERSION)
                self._file.execute(sql.USE_TAIL_OF_LAST)

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        """Keep times by text; return all of a destination."""
        number = self._number(destination)
        self._file.executemany(sql.NOTE_ABSENCE, [(number, text, time) for text, time in absences.items()])
        return dict(self._file.execute(sql.ABSENCES, (number,)).fetchall())

    def drop_beyond(self, max_pending: int) -> None:
        """Drop the oldest waiting messages beyond a bound, of the destinations that got new ones."""
        for number in [*self._numbers.values()]:
            excess = read(self._file, sql.PENDING, number) + self._tally.pending[number] - max_pending
            if excess > 0:
                rows = self._file.execute(sql.OVER_BOUND, (number, excess)).fetchall()
                self._file.executemany(sql.DELETE, [(version,) for version, *_ in rows])
                for _, account, replaces in rows:
                    self._tally.count(account, "dropped", is_event=not replaces)
                self._tally.pending[number] -= len(rows)

    def forget(self, rows: Sequence[tuple[int, int]]) -> None:
        """Delete remembered rows, given by version and destination."""
        self._file.executemany(sql.DELETE, [(version,) for version, _ in rows])
        self._tally.remembered.subtract(destination for _, destination in rows)

    def forget_tails(self, before_version: int, limit: int) -> None:
        """Delete the tails that no message of this or a higher version has."""
        self._file.execute(sql.UNUSED_TAILS, (before_version, limit))

    def close_accounts(self, used_before: float, limit: int) -> None:
        """Merge idle accounts without pending messages into the account of former processes."""
        rows = self._file.execute(sql.IDLE_ACCOUNTS, (used_before, self._account, limit)).fetchall()
        self._file.executemany(sql.CLOSE_ACCOUNT, rows)
        self._file.executemany(sql.DELETE_ACCOUNT, rows)

    def finish(self) -> None:
        """Write the counts."""
        for (account, outcome), count in self._tally.outcomes.items():
            self._file.execute(sql.COUNT[outcome], (count, account))
        for number in {*self._tally.pending, *self._tally.remembered}:
            self._file.execute(
                sql.COUNT_MESSAGES, (self._tally.pending[number], self._tally.remembered[number], number)
            )
        if self._account:
            self._file.execute(sql.USE_ACCOUNT, (self._now, self._account))

    def _add(self, judge: Judge, number: int, key: str, message: Message, row: Known | None) -> None:
        fate = judge.add(number, message, row)
        if fate is Fate.UNCHANGED or fate is Fate.SUPERSEDED:
            return
        if row is not None and fate is Fate.TOUCHES:
            self._rows.touch(row, message, judge.boot)
            return
        if row is not None and fate is Fate.FOLLOWS:
            self._rows.older.append((row.version,))
        when = message.evaluated_at, judge.moment(message.evaluated_at), message.evaluation
        accepted = message.fingerprint, NEVER if message.body else self._now
        owner = message.resend_after_seconds, self._account, message.replaces
        content = (self._tail(message.tail), message.body) if message.body else (None, None)
        is_latest = fate is not Fate.PRECEDES
        self._rows.new.append((number, key, is_latest, judge.boot, *when, *accepted, *owner, *content))

    def _judge(self) -> Judge:
        return Judge(self._tally, account=self._account, now=self._now, clock=self._clock, boot=boot_number())

    def _known(self, number: int, those: Sequence[Message | Repeat]) -> "dict[str, Known]":
        """Return the latest row of each key; the keys are escaped."""
        self._account = self._account or self._find_account()
        keys = json.dumps([escaped(one.key) for one in those])
        rows = self._file.execute(sql.KNOWN, (keys, number)).fetchall()
        return {row[0]: Known(*row[1:]) for row in rows}

    def _number(self, destination: Destination) -> int:
        if destination not in self._numbers:
            self._file.execute(sql.NEW_DESTINATION, destination)
            self._numbers[destination] = read(self._file, sql.DESTINATION, *destination)
        return self._numbers[destination]

    def _tail(self, content: bytes) -> int:
        if content not in self._tails:
            digest = blake2b(content, digest_size=16).digest()
            self._file.execute(sql.NEW_TAIL, (digest, content))
            self._tails[content] = read(self._file, sql.TAIL, digest)
        return self._tails[content]

    def _find_account(self) -> int:
        self._file.execute(sql.NEW_ACCOUNT, (self._process,))
        return read(self._file, sql.ACCOUNT, self._process)


def _by_destination(messages: Iterable[M]) -> dict[Destination, list[M]]:
    found: dict[Destination, list[M]] = {}
    for message in messages:
        found.setdefault(message.destination, []).append(message)
    return found
