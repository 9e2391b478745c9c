"""The outbox in a file: SQLite, shared by the processes of a host.

Guarantee: what is saved survives its process; of each profile the latest evaluation wins, whichever process
made it; one process at a time sends. What the file cannot take is delivered from memory. Boundary: local file
systems, whose locks the kernel releases with the process.
"""

import fcntl
import os
import sqlite3
import weakref
from collections import Counter
from collections.abc import Collection, Container, Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import Any, TypeAlias

from flagsync import _schema as sql
from flagsync._outbox import MAX_BATCH_UPDATES, Destination, MemoryOutbox, Update, fitting
from flagsync._report import FULL
from flagsync.exceptions import DeliveryError

MAX_ROWS = 1_000_000  # that wait, of a project; and as many that are remembered
REMEMBER_SECONDS, PRUNE_SECONDS = 30 * 86400.0, 3600.0
BROKEN_SECONDS = 60.0
# Updates wait in memory for a moment, because a transaction costs more than a row.
SAVE_SECONDS, SAVE_UPDATES = 0.1, 500
INHERITED = "a process that had it open was forked past Python's hooks; build FlagSync after the fork"


Fates: TypeAlias = Counter[tuple[int | None, str]]
"""How many updates of a writer had a fate."""


class FileOutbox(MemoryOutbox):
    """Lets updates wait in memory until they are saved; then the file has them, and memory forgets.

    While the file cannot be used it is what it inherits, an outbox in memory.
    """

    shared = True

    def __init__(self, path: str, *memory: Any) -> None:  # noqa: ANN401 - what MemoryOutbox takes
        super().__init__(*memory)
        self._path, self._pid = os.path.realpath(path), os.getpid()
        self._connection: sqlite3.Connection | None = None
        self._writer: int | None = None
        self._destinations: dict[Destination, int] = {}
        self._last = 0  # the destination that was served last
        self._election: int | None = None  # the file descriptor of the sender's lock
        self._broken, self._broken_until = False, 0.0
        self._saved_at = self._pruned_at = monotonic()
        self._many = MAX_BATCH_UPDATES  # fill a request
        self._many_wait = False
        self._numbers: dict[str, int] = {}  # of what was taken last
        self._fates = Counter[str]()
        _outboxes.add(self)

    def unchanged(self, distinct_id: str, fingerprint: bytes) -> bool:
        """Only a transaction tells what other processes do: ``save`` finds out."""
        return self._broken and super().unchanged(distinct_id, fingerprint)

    def put(self, distinct_id: str, fingerprint: bytes, json: bytes, evaluated_at: float) -> None:
        super().put(distinct_id, fingerprint, json, evaluated_at)
        if len(self._waiting) >= SAVE_UPDATES or monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        with self._lock, self._guard():
            self._saved_at = monotonic()
            if self._waiting:
                file = self._file(write=True)
                fates = Fates({(self._writer, "accepted"): len(self._waiting)})
                for update in self._waiting.values():
                    fates.update(self._store(file, update))
                self._count(file, fates)
                self._keep_rows(file)
                file.commit()
                self._waiting.clear()
                self._bytes = 0

    def full(self) -> bool:
        return super().full() if self._broken else self._many_wait

    def waiting(self) -> bool:
        with self._lock, self._guard():
            if not super().waiting():
                file = self._file()
                return self._elected() and bool(sql.read(file, sql.WAITS))
        return super().waiting()

    def oldest(self) -> float | None:
        with self._lock:
            moments = [super().oldest()]
            with self._guard():
                file = self._own_file()
                own = self._destinations[self._destination]
                moments += file.execute(sql.UNSETTLED, (own,)).fetchone()
            return min((moment for moment in moments if moment is not None), default=None)

    def take(self, resting: Container[Destination] = ()) -> list[Update]:
        with self._lock:
            self.save()
            if super().waiting():  # because the file cannot be used
                return super().take(resting)
            with self._guard():
                file = self._file()
                if self._elected():
                    return self._batch(file, resting)
            return []

    def settle(self, accepted: Collection[Update], rejected: Collection[Update]) -> None:
        with self._lock, self._guard():
            if self._in_flight:
                super().settle(accepted, rejected)
                return
            file, fates = self._file(write=True), Fates()
            for updates, when, fate in ((accepted, time(), "delivered"), (rejected, 0.0, "rejected")):
                # A state that took the place of what was sent has another number.
                numbers = str([self._numbers[update.distinct_id] for update in updates])
                for writer, count in file.execute(sql.SETTLED, (numbers,)).fetchall():
                    fates[writer, fate] += count
                file.execute(sql.SETTLE, (when, numbers))
            self._count(file, fates)
            file.commit()

    def kept(self) -> int:
        return self._fates["accepted"] - sum(self._fates[fate] for fate in sql.FATES)

    def counts(self) -> Counter[str]:
        with self._lock:
            with self._guard():
                row = self._own_file().execute(sql.COUNTS, (self._writer,)).fetchone()
                self._fates = Counter(dict(zip(sql.COLUMNS, row, strict=True)))
            return super().counts() + Counter({fate: self._fates[fate] for fate in sql.FATES})

    def close(self) -> None:
        with self._lock:
            self.save()
            self.counts()
            super().close()
            self._disconnect()
            self._resign()

    def hold(self) -> None:
        """Before a fork: let the child inherit no connection, and no lock that a thread of its parent holds."""
        self._lock.acquire()
        self._disconnect()

    def let_go(self) -> None:
        """After the fork, on both sides."""
        if self._pid != os.getpid():
            self._resign()
        self._lock.release()

    def _disconnect(self) -> None:
        """Close the connection until it is needed again."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            _connected.remove((self._pid, self._path))

    def _resign(self) -> None:
        """Let another outbox of the host be the one that sends."""
        if self._election is not None:
            os.close(self._election)  # with the lock; in a forked child, which has inherited none, without
            self._election = None
            _senders.pop((self._pid, self._path), None)

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """What the file cannot do is undone and reported, and left to memory for a while."""
        try:
            yield
        except _OutOfUseError:
            pass
        except (sqlite3.Error, OSError, ValueError) as error:
            self._disconnect()
            self._resign()
            self._broken_until = monotonic() + BROKEN_SECONDS
            if not self._broken:
                self._broken = True
                reason = f"The outbox cannot be used, memory takes its place ({error})"
                self._report.note(DeliveryError(reason, len(self._waiting), will_retry=True))

    def _file(self, *, write: bool = False) -> sqlite3.Connection:
        """The connection; in a transaction, if it is to write."""
        if self._connection is None:
            if self._closed or monotonic() < self._broken_until:
                raise _OutOfUseError
            # SQLite keeps the locks of a process in its memory, which a fork copies, and the locks are gone.
            if any(path == self._path and pid != os.getpid() for pid, path in _connected):
                raise OSError(INHERITED)
            self._connection = sql.connect(self._path)
            _connected.append((self._pid, self._path))
            self._sign_in(self._connection)
        if write:
            self._connection.execute("BEGIN IMMEDIATE")
        return self._connection

    def _own_file(self) -> sqlite3.Connection:
        """The connection, if this outbox has ever written."""
        if self._writer is None:
            raise _OutOfUseError
        return self._file()

    def _sign_in(self, file: sqlite3.Connection) -> None:
        file.execute("INSERT OR IGNORE INTO destinations (url, project) VALUES (?, ?)", self._destination)
        self._read_destinations(file)
        values = (self._writer, self._destinations[self._destination])
        file.execute("INSERT OR IGNORE INTO writers (id, destination) VALUES (?, ?)", values)
        self._writer = self._writer or sql.read(file, "SELECT last_insert_rowid()")
        if self._broken:
            self._broken = False
            self._report.note("The outbox is in use again")

    def _read_destinations(self, file: sqlite3.Connection) -> None:
        rows = file.execute("SELECT url, project, id FROM destinations")
        self._destinations = {Destination(url, project): number for url, project, number in rows}

    def _elected(self) -> bool:
        """Whether this is the one outbox of the host that sends what the file has."""
        if self._election is None and _senders.setdefault((self._pid, self._path), self) is self:
            # A POSIX lock, which no fork copies.
            descriptor = os.open(f"{self._path}-sender", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._election = descriptor
            except OSError:
                os.close(descriptor)
                del _senders[self._pid, self._path]
        return self._election is not None

    def _store(self, file: sqlite3.Connection, update: Update) -> list[tuple[int | None, str]]:
        """Let an update wait, unless the file knows better; what became of whose update by that."""
        key, now = (self._destinations[self._destination], update.distinct_id), time()
        superseded: list[tuple[int | None, str]] = []
        if known := file.execute(sql.KNOWN, key).fetchone():
            evaluated_at, fingerprint, accepted_at, writer, waits = known
            if update.evaluated_at < evaluated_at <= now:  # and the clock was not put back
                return [(self._writer, "superseded")]
            fresh = 0 <= now - accepted_at < self._resend_after_seconds
            if fingerprint == update.fingerprint and (waits or fresh):
                file.execute(sql.TOUCH, (update.evaluated_at, *key))
                return [(self._writer, "unchanged")]
            superseded = [(writer, "superseded")] * waits
        file.execute(sql.WAIT, (*key, update.evaluated_at, update.fingerprint, self._writer, update.json))
        return superseded

    def _batch(self, file: sqlite3.Connection, resting: Container[Destination]) -> list[Update]:
        self._read_destinations(file)
        in_turn = sorted(self._destinations.items(), key=lambda item: (item[1] <= self._last, item[1]))
        for destination, last in in_turn:
            if destination not in resting:
                rows = file.execute(sql.OLDEST, (last, MAX_BATCH_UPDATES)).fetchall()
                batch = fitting(Update._make((*row[1:], destination)) for row in rows)
                if batch:
                    self._last, self._numbers = last, {row[1]: row[0] for row in rows}
                    self._many = len(batch) if len(batch) < len(rows) else MAX_BATCH_UPDATES
                    return batch
        return []

    def _keep_rows(self, file: sqlite3.Connection) -> None:
        """Keep the bounds, of what waits and of what is remembered."""
        own, too_many = self._destinations[self._destination], self._pending(file) - MAX_ROWS
        if too_many > 0:
            dropped = file.execute(sql.FIRST_OF, (own, too_many)).fetchall()
            file.execute(sql.DROP, (own, too_many))
            self._count(file, Fates({(writer, "dropped"): count for writer, count in dropped}))
            self._report.lose(FULL, too_many)
        if monotonic() - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = monotonic()
            file.execute(sql.FORGET, (time() - REMEMBER_SECONDS, MAX_ROWS))

    def _pending(self, file: sqlite3.Connection) -> int:
        return sql.read(file, sql.PENDING, self._destinations[self._destination])

    def _count(self, file: sqlite3.Connection, fates: Fates) -> None:
        for (writer, fate), count in fates.items():
            file.execute(sql.COUNT[fate], (count, writer))
        self._many_wait = self._pending(file) >= self._many


class _OutOfUseError(Exception):
    """The file is closed, or rests after an error."""


_outboxes: weakref.WeakSet[FileOutbox] = weakref.WeakSet()
_connected: list[tuple[int, str]] = []  # by process and file
_senders: dict[tuple[int, str], FileOutbox] = {}  # likewise: within a process, a POSIX lock keeps nobody out
_forking: list[FileOutbox] = []


def _before_fork() -> None:
    for outbox in list(_outboxes):
        outbox.hold()
        _forking.append(outbox)


def _after_fork() -> None:
    while _forking:
        _forking.pop().let_go()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
