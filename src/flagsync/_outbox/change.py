"""One transaction of an outbox file: it decides which message wins, and keeps the counts.

Guarantee: the counts of the file change in the transaction that changes its messages.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from hashlib import blake2b
from math import inf
from typing import TypeVar

from flagsync._clock import monotonic, time
from flagsync._files.sqlite import read
from flagsync._outbox import schema as sql
from flagsync._outbox.boot import boot_number
from flagsync._outbox.contract import Destination, Message, Repeat
from flagsync._outbox.rows import Known, Rows, escaped

NEVER = -inf  # seconds since 1970

M = TypeVar("M", Message, Repeat)


class Change:
    """The changes to a file while its write lock is held.

    Args:
        file: A connection in a transaction.
        process: The name of this process's account.
    """

    def __init__(self, file: sqlite3.Connection, process: str) -> None:
        self._file, self._process = file, process
        self._now, self._clock, self._boot = time(), monotonic(), boot_number()
        self._account = 0
        self._numbers: dict[Destination, int] = {}
        self._tails: dict[bytes, int] = {}
        self._outcomes = Counter[tuple[int, str]]()  # by account and outcome
        self._pending, self._remembered = Counter[int](), Counter[int]()  # by destination
        self._rows = Rows()

    def add(self, messages: Sequence[Message]) -> None:
        """Store messages of different keys. One without a body was sent already, and is only remembered."""
        for destination, those in _by_destination(messages).items():
            number = self._number(destination)
            known = self._known(number, those)
            for message in those:
                key = escaped(message.key)
                self._add(number, key, message, known.get(key))
        self._rows.write(self._file)
        self._file.executemany(sql.USE_TAIL, [(number,) for number in self._tails.values()])

    def confirm(self, repeats: Sequence[Repeat]) -> list[Repeat]:
        """Touch the rows that repeats of different keys match; return the repeats that match none."""
        new = list[Repeat]()
        for destination, those in _by_destination(repeats).items():
            known = self._known(self._number(destination), those)
            for repeat in those:
                row = known.get(escaped(repeat.key))
                if row is None or row.evaluation != repeat.evaluation or not self._is_current(row, row):
                    new.append(repeat)
                    continue
                self._outcomes[self._account, "accepted"] += 1
                self._outcomes[self._account, "unchanged"] += 1
                self._touch(row, repeat)
        self._rows.write(self._file)
        return new

    def settle(self, destination: int, messages: Collection[Message], outcome: str, accepted_at: float) -> None:
        """Settle messages that still have the version that was sent."""
        if not messages:
            return
        versions = json.dumps([message.version for message in messages])
        for account, replaces, count, latest in self._file.execute(sql.CLAIMED_OF, (versions,)).fetchall():
            self._count(account, outcome, count, is_event=not replaces)
            self._pending[destination] -= count
            self._remembered[destination] += latest
        self._file.execute(sql.SETTLE_OLDER, (versions,))
        self._file.execute(sql.SETTLE, (accepted_at, versions))

    def postpone(self, messages: Collection[Message]) -> None:
        """Put messages that still have the version that was sent behind all others."""
        for message in messages:
            if self._file.execute(sql.POSTPONE, (message.version,)).rowcount:
                self._file.execute(sql.COUNT_VERSION)
                self._file.execute(sql.USE_TAIL_OF_LAST)

    def drop_beyond(self, max_pending: int) -> None:
        """Drop the oldest waiting messages beyond a bound, of the destinations that got new ones."""
        for number in [*self._numbers.values()]:
            excess = read(self._file, sql.PENDING, number) + self._pending[number] - max_pending
            if excess > 0:
                rows = self._file.execute(sql.OVER_BOUND, (number, excess)).fetchall()
                self._file.executemany(sql.DELETE, [(version,) for version, *_ in rows])
                for _, account, replaces in rows:
                    self._count(account, "dropped", is_event=not replaces)
                self._pending[number] -= len(rows)

    def forget(self, rows: Sequence[tuple[int, int]]) -> None:
        """Delete remembered rows, given by version and destination."""
        self._file.executemany(sql.DELETE, [(version,) for version, _ in rows])
        self._remembered.subtract(destination for _, destination in rows)

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
        for (account, outcome), count in self._outcomes.items():
            self._file.execute(sql.COUNT[outcome], (count, account))
        for number in {*self._pending, *self._remembered}:
            self._file.execute(sql.COUNT_MESSAGES, (self._pending[number], self._remembered[number], number))
        if self._account:
            self._file.execute(sql.USE_ACCOUNT, (self._now, self._account))

    def _add(self, number: int, key: str, message: Message, row: "Known | None") -> None:
        is_event = not message.replaces
        if message.body:
            self._count(self._account, "accepted", is_event=is_event)
        is_late = row is not None and self._is_late(message, row)
        if row is not None:
            if message.body and row.fingerprint == message.fingerprint and self._is_current(row, message):
                self._count(self._account, "unchanged", is_event=is_event)
                self._touch(row, message)
                return
            if is_late and message.replaces:
                self._outcomes[self._account, "superseded"] += bool(message.body)
                return
            if not is_late:
                self._displace(number, message, row)
        (self._pending if message.body else self._remembered)[number] += 1
        waits_since = self._now - (self._clock - message.evaluated_at)
        when = self._boot, message.evaluated_at, waits_since, message.evaluation
        accepted = message.fingerprint, NEVER if message.body else self._now
        owner = message.resend_after_seconds, self._account, message.replaces
        content = (self._tail(message.tail), message.body) if message.body else (None, None)
        self._rows.new.append((number, key, not is_late, *when, *accepted, *owner, *content))

    def _count(self, account: int, outcome: str, number: int = 1, *, is_event: bool) -> None:
        self._outcomes[account, outcome] += number
        if is_event:
            self._outcomes[account, f"event_{outcome}"] += number

    def _displace(self, number: int, message: Message, row: "Known") -> None:
        """Count the row that a message replaces, or keep both."""
        if not row.waits:
            self._remembered[number] -= 1
        elif message.replaces:
            self._outcomes[row.account, "superseded"] += 1
            self._pending[number] -= 1
        else:
            self._rows.older.append((row.version,))

    def _touch(self, row: "Known", message: Message | Repeat) -> None:
        """Note the time of an evaluation with the same result, unless a later one is noted."""
        if not self._is_late(message, row):
            self._rows.touched.append((self._boot, message.evaluated_at, message.evaluation, row.version))

    def _is_late(self, message: Message | Repeat, row: "Known") -> bool:
        """Whether the row was evaluated later. All processes of a host share one clock until it reboots."""
        return row.boot == self._boot and message.evaluated_at < row.evaluated_at <= self._clock

    def _is_current(self, row: "Known", equal: "Message | Known") -> bool:
        """Whether an equal message need not be sent."""
        return bool(row.waits) or 0 <= self._now - row.accepted_at < equal.resend_after_seconds

    def _known(self, number: int, those: Sequence[Message | Repeat]) -> "dict[str, Known]":
        """Return the latest row of each key; the keys are escaped."""
        self._account = self._account or self._find_account()
        keys = json.dumps([escaped(one.key) for one in those])
        rows = self._file.execute(sql.KNOWN, (keys, number)).fetchall()
        return {row[0]: Known._make(row[1:]) for row in rows}

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
