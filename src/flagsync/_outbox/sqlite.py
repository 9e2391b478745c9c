"""The backend in a file: SQLite, shared by the processes of a host.

Guarantee: what is stored survives its process. Every statement that holds the write lock does a bounded amount of work,
whatever the size of the file. Boundary: local file systems, whose locks the kernel releases with the process.
"""

import os
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from os import PathLike
from typing import NamedTuple
from uuid import uuid4

from flagsync._clock import monotonic, time
from flagsync._files.shared import SharedFile
from flagsync._files.sqlite import BUSY_SECONDS, prepare, read
from flagsync._outbox import schema as sql
from flagsync._outbox.backend import LONG_AGO, Status, StoreTotals, totals_of, waited_seconds
from flagsync._outbox.batch import fitting
from flagsync._outbox.change import NEVER, Change
from flagsync._outbox.contract import Absences, Destination, Limits, Message, Repeat
from flagsync._outbox.options import StoreBounds, checked
from flagsync._outbox.rows import unescaped
from flagsync._outbox.schema import OUTBOX
from flagsync._process import PerProcess


class SQLiteBackend:
    """Keeps messages in a file; see ``Backend``.

    Args:
        path: Path of the file, which is made when it is needed.
        bounds: How large it gets.

    Raises:
        ValueError: The bounds are something else.
    """

    lease_seconds = 0.0

    def __init__(self, path: str | PathLike[str], bounds: StoreBounds = StoreBounds()) -> None:  # noqa: B008 - it is frozen
        self.path = os.path.realpath(os.fsdecode(path))
        self._file, self._bounds = SharedFile(self.path, OUTBOX), checked(bounds)
        self._process = PerProcess[str](lambda _: uuid4().hex)
        self._claimed = _Claimed()
        self._pruned_at, self._pruned_up_to = -LONG_AGO, 0

    def check(self) -> None:
        """Create the file, or check the one that is there.

        Raises:
            ValueError: It cannot be used.
        """
        prepare(self.path, OUTBOX).close()

    def store(
        self, messages: Sequence[Message], sent: Sequence[Message], repeats: Sequence[Repeat], deadline: float
    ) -> Sequence[Repeat]:
        with self._file.write(deadline) as file:
            change = Change(file, self._process.get())
            change.add(sent)
            for part in _of_different_keys(messages):
                change.add(part)
            change.drop_beyond(self._bounds.max_pending)
            new = change.confirm(repeats)
            if self._file.lease.is_held:
                self._prune(file, change)
            change.finish()
        return new

    def claim(self, resting: Collection[Destination], limits: Limits) -> Sequence[Message]:
        with self._file.read(monotonic() + BUSY_SECONDS) as file:
            for number, *where in file.execute(sql.IN_TURN, (self._claimed.destination,)).fetchall():
                if (destination := Destination(*where)) in resting:
                    continue
                with closing(_messages(file, number, destination, limits.max_batch_messages)) as messages:
                    batch = fitting(messages, limits)
                if batch:
                    self._claimed = _Claimed(read(file, sql.STORE), number)
                    return batch
        return ()

    def settle(
        self,
        accepted: Collection[Message],
        rejected: Collection[Message],
        last: Collection[Message],
        deadline: float,
    ) -> None:
        with self._file.write(deadline) as file:
            if read(file, sql.STORE) != self._claimed.store:
                return  # the file was replaced, and has other messages with these versions
            change = Change(file, self._process.get())
            change.settle(self._claimed.destination, accepted, "delivered", time())
            change.settle(self._claimed.destination, rejected, "rejected", NEVER)
            change.postpone(last)
            change.finish()

    def status(self, destinations: Collection[Destination]) -> Status:
        with self._file.read(monotonic() + BUSY_SECONDS) as file, _snapshot(file):
            numbers = [number for where in destinations for [number] in file.execute(sql.DESTINATION, where)]
            firsts = [first for number in numbers for [first] in file.execute(sql.FIRST, (number,)) if first]
            [[account, *own]] = file.execute(sql.OWN_TOTALS, (self._process.get(),)).fetchall() or [(0,)]
            own_totals, own_events = totals_of(own)
            return Status(
                store=read(file, sql.STORE),
                account=account,
                own=own_totals,
                own_events=own_events,
                pending=read(file, sql.ALL_PENDING),
                oldest_seconds=_oldest_seconds(file),
                first_version=min(firsts, default=None),
                last_version=read(file, sql.LAST),
                silent_seconds=self._file.lease.silent_seconds(),
            )

    def totals(self) -> StoreTotals:
        with self._file.read(monotonic() + BUSY_SECONDS) as file:
            return read_totals(file)

    def try_acquire_lease(self) -> bool:
        return self._file.lease.try_acquire()

    def note_absences(self, destination: Destination, absences: Absences) -> Absences:
        with self._file.write(monotonic() + BUSY_SECONDS) as file:
            return Change(file, self._process.get()).note_absences(destination, absences)

    def close(self) -> None:
        self._file.close()

    def _prune(self, file: sqlite3.Cursor, change: Change) -> None:
        """Forget some messages that were remembered too long, or are beyond the bound."""
        excess = read(file, sql.ALL_REMEMBERED) - self._bounds.max_remembered
        if excess <= 0 and monotonic() - self._pruned_at < self._bounds.prune_seconds:
            return
        self._pruned_at = monotonic()
        rows = file.execute(sql.OLD_ROWS, (self._pruned_up_to, self._bounds.prune_rows)).fetchall()
        cutoff, old = time() - self._bounds.remember_seconds, list[tuple[int, int]]()
        for version, destination, is_remembered, accepted_at in rows:
            if is_remembered and (accepted_at < cutoff or len(old) < excess):
                old.append((version, destination))
        change.forget(old)
        # The next call continues behind these rows, and starts again when all were seen.
        self._pruned_up_to = rows[-1][0] if len(rows) == self._bounds.prune_rows else 0
        # Messages stored now have higher versions, but those that waited before may have been superseded.
        first = _first_version(file)
        change.forget_tails(read(file, sql.LAST) if first is None else first, self._bounds.prune_tails)
        change.close_accounts(time() - self._bounds.account_seconds, self._bounds.prune_rows)


class _Claimed(NamedTuple):
    """Where the batch in flight came from: the store, and the number of the destination."""

    store: int = 0
    destination: int = 0


def read_totals(file: sqlite3.Connection | sqlite3.Cursor) -> StoreTotals:
    """Return what became of all messages in a file."""
    with _snapshot(file):
        return StoreTotals(*totals_of(file.execute(sql.ALL_TOTALS).fetchone()), _oldest_seconds(file))


@contextmanager
def _snapshot(file: sqlite3.Connection | sqlite3.Cursor) -> Iterator[None]:
    """Let all queries of a block see the same state of a file. After an error, the connection must be closed."""
    file.execute("BEGIN")
    yield
    file.execute("ROLLBACK")


def _of_different_keys(messages: Sequence[Message]) -> Iterator[list[Message]]:
    """Split messages, in their order, into parts in which no key occurs twice."""
    part, keys = list[Message](), defaultdict[Destination, set[str]](set)
    for message in messages:
        if message.key in keys[message.destination]:
            yield part
            part, keys = [], defaultdict(set)
        part.append(message)
        keys[message.destination].add(message.key)
    yield part


def _messages(file: sqlite3.Cursor, number: int, destination: Destination, limit: int) -> Generator[Message]:
    """Return the oldest messages that wait for a destination."""
    tails = dict[int, bytes]()
    with closing(file.connection.execute(sql.OLDEST, (number, limit))) as rows:
        for key, fingerprint, body, evaluated_at, resend_after_seconds, tail, replaces, version in rows:
            if tail not in tails:
                [tails[tail]] = file.execute(sql.TAIL_CONTENT, (tail,)).fetchone()
            yield Message(
                unescaped(key),
                fingerprint,
                body,
                evaluated_at,
                destination,
                resend_after_seconds,
                tail=tails[tail],
                replaces=bool(replaces),
                version=version,
            )


def _oldest_seconds(file: sqlite3.Connection | sqlite3.Cursor) -> float:
    """Return how long the first message has waited; 0.0 if none waits."""
    if (first := _first_version(file)) is None:
        return 0.0
    [(waits_since,)] = file.execute(sql.WAITS_SINCE, (first,)).fetchall()
    return waited_seconds(time() - waits_since)


def _first_version(file: sqlite3.Connection | sqlite3.Cursor) -> int | None:
    """Return the lowest pending version; None if there is none."""
    numbers = [number for [number] in file.execute(sql.BUSY_DESTINATIONS).fetchall()]
    firsts = [version for number in numbers for [version] in file.execute(sql.FIRST, (number,)) if version]
    return min(firsts, default=None)
