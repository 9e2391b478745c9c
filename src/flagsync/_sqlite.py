"""The outbox in a file: SQLite, shared by the processes of a host.

Guarantee: what is saved survives its process; of each profile the latest evaluation wins, whichever process
made it; one process at a time sends. What the file cannot take is delivered from memory. Boundary: local file
systems, whose locks the kernel releases with the process.
"""

import sqlite3
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, time
from typing import Any

from flagsync import _schema as sql
from flagsync._database import read
from flagsync._host import OutOfUseError, SharedFile
from flagsync._outbox import MAX_BATCH_UPDATES, REMEMBERED_PROFILES, Destination, MemoryOutbox, Update, fitting
from flagsync._recent import Recent
from flagsync._report import FULL
from flagsync.exceptions import DeliveryError

MAX_ROWS = 1_000_000  # that wait, of a project; and as many that are remembered
REMEMBER_SECONDS, PRUNE_SECONDS, BROKEN_SECONDS = 30 * 86400.0, 3600.0, 60.0
# Updates wait in memory for a moment, because a transaction costs more than a row.
SAVE_SECONDS, SAVE_UPDATES = 0.1, 500


class FileOutbox(MemoryOutbox):
    """Lets updates wait in memory until they are saved; then the file has them, and memory forgets.

    While the file cannot be used it is what it inherits, an outbox in memory.
    """

    shared = True

    def __init__(self, path: str, *memory: Any) -> None:  # noqa: ANN401 - what MemoryOutbox takes
        super().__init__(*memory)
        self._file = SharedFile(path, sql.OUTBOX)
        self._lock = self._file.lock
        self._writer: int | None = None
        self._signed_in_at = 0  # the file that knows the writer
        self._connection: sqlite3.Connection | None = None  # that was signed in on
        self._usable_from = 0.0
        self._here = self._last = 0  # the numbers of the own destination, and of the one that was served last
        self._broken = False
        self._saved_at, self._pruned_at = monotonic(), -PRUNE_SECONDS
        self._many, self._many_wait = MAX_BATCH_UPDATES, False  # fill a request
        self._flies = False  # something out of the file is in flight
        self._sent: dict[str, Update] = {}  # what memory has delivered, and the file does not know yet
        # What became of the updates of this process, and what the file does not know of that any more.
        self._fates, self._past = Counter[str](), Counter[str]()

    def unchanged(self, distinct_id: str, key: int) -> bool:
        """Only a transaction tells what other processes do: ``save`` finds out."""
        return self._broken and super().unchanged(distinct_id, key)

    def put(self, distinct_id: str, *update: Any) -> bool:  # noqa: ANN401 - what MemoryOutbox takes
        with self._lock:
            if not self._broken:  # even an equal state is news to the file: of when it was evaluated
                self._known.forget(distinct_id)
            new = super().put(distinct_id, *update)
        if len(self._waiting) >= SAVE_UPDATES or monotonic() - self._saved_at > SAVE_SECONDS:
            self.save()
        return new

    def save(self) -> None:
        with self._lock, self._guard():
            self._saved_at = monotonic()
            if self._waiting or self._sent:
                file = self._open(write=True)
                fates = sql.Fates({(self._writer, "accepted"): len(self._waiting)})
                for update in (*self._sent.values(), *self._waiting.values()):
                    self._store(file, update, fates)
                sql.count(file, fates)
                self._keep_rows(file)
                file.commit()
                self._sent.clear()
                self._waiting.clear()
                self._bytes = 0
                self._known = Recent(REMEMBERED_PROFILES)  # the file knows better
                self._many_wait = sql.pending(file, self._here) >= self._many
                self._read_fates(file)

    def full(self) -> bool:
        return super().full() if self._broken else self._many_wait

    def waiting(self) -> bool:
        with self._lock, self._guard():
            if not super().waiting():
                file = self._open()
                return self._file.elected() and bool(read(file, sql.WAITS))
        return super().waiting()

    def oldest(self) -> float | None:
        with self._lock:
            moments = [super().oldest(), 0.0 if self.kept() else None]
            with self._guard():
                file = self._open()
                [moments[1]] = file.execute(sql.UNSETTLED, (self._here,)).fetchone()
            return min((moment for moment in moments if moment is not None), default=None)

    def take(self, resting: Container[Destination] = ()) -> list[Update]:
        with self._lock:
            self.save()
            if super().waiting():  # because the file cannot be used
                batch = super().take(resting)
                # Whatever comes of it, Mixpanel may no longer have what the file says.
                self._remember(update._replace(fingerprint=b"") for update in batch)
                return batch
            with self._guard():
                file = self._open()
                if self._file.elected():
                    return self._batch(file, resting)
            return []

    def settle(self, accepted: Collection[Update], rejected: Collection[Update]) -> None:
        with self._lock, self._guard():
            if self._closed:
                self._file.resign()
            if self._in_flight:
                self._remember(accepted)
                super().settle(accepted, rejected)
                return
            file, fates = self._open(write=True), sql.Fates()
            flies, self._flies = self._flies, False
            for updates, when, fate in ((accepted, time(), "delivered"), (rejected, 0.0, "rejected")):
                # A state that took the place of what was sent has another number.
                numbers = str([update.number for update in updates if flies])
                for writer, count in file.execute(sql.SETTLED, (numbers,)).fetchall():
                    fates[writer, fate] += count
                file.execute(sql.SETTLE, (when, numbers))
            sql.count(file, fates)
            file.commit()
            self._many_wait = sql.pending(file, self._here) >= self._many
            self._read_fates(file)

    def kept(self) -> int:
        return self._fates["pending"]

    def counts(self) -> Counter[str]:
        with self._lock:
            with self._guard():
                self._read_fates(self._open())
            return super().counts() + Counter({fate: self._fates[fate] for fate in sql.FATES})

    def close(self) -> None:
        with self._lock:
            self._usable_from = 0.0
            self.save()
            self.counts()
            super().close()
            self._file.disconnect()
            if not self._flies:  # else a newer state could overtake the one that is in flight
                self._file.resign()

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """What the file cannot do is undone, reported once, and left to memory until it can."""
        try:
            yield
        except OutOfUseError:
            pass
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread and its updates go on
            self._file.disconnect()
            self._file.resign()
            self._usable_from = monotonic() + BROKEN_SECONDS
            if not self._broken:
                self._broken = True
                reason = f"The outbox cannot be used, memory takes its place ({error})"
                self._report.note(DeliveryError(reason, len(self._waiting), will_retry=True))

    def _open(self, *, write: bool = False) -> sqlite3.Connection:
        """The file; in a transaction if it is to write, else to read what became of what was written."""
        if self._closed or monotonic() < self._usable_from or not (write or self._writer):
            raise OutOfUseError
        file = self._file.open()
        if file is not self._connection:
            self._sign_in(file)
        if write:
            file.execute("BEGIN IMMEDIATE")
            self._read_fates(file)
        return file

    def _sign_in(self, file: sqlite3.Connection) -> None:
        file.execute("INSERT OR IGNORE INTO destinations (url, project) VALUES (?, ?)", self._destination)
        self._here = read(file, sql.HERE, *self._destination)
        if another := self._signed_in_at != self._file.found:
            self._writer, self._flies = None, False
            if gone := self._fates["pending"]:
                self._report.lose("The file of the outbox was removed", gone)
        self._read_fates(file, "dropped" if another else "delivered")
        self._connection, self._signed_in_at = file, self._file.found
        if self._broken:
            self._broken = False
            self._report.note("The outbox is in use again")

    def _read_fates(self, file: sqlite3.Connection, fate: str = "delivered") -> None:
        """What became of the updates of this process; if its writer is gone, what was pending had the fate."""
        if not read(file, sql.KNOWN_WRITER, self._writer):  # others forget, in the end, who has nothing pending
            pending = self._fates["pending"]
            self._past = self._fates + Counter({fate: pending, "pending": -pending})
            self._writer = file.execute("INSERT INTO writers (destination) VALUES (?)", (self._here,)).lastrowid
        self._fates = self._past + sql.counts(file, "id = ?", self._writer)

    def _remember(self, updates: Iterable[Update]) -> None:
        """Note for the file what memory has delivered, or may have."""
        self._sent.update((update.distinct_id, update._replace(json=b"")) for update in updates)
        for distinct_id in [*self._sent][:-REMEMBERED_PROFILES]:
            del self._sent[distinct_id]

    def _store(self, file: sqlite3.Connection, update: Update, fates: sql.Fates) -> None:
        """Let an update wait, unless the file knows better."""
        key, now = (self._here, update.distinct_id), time()
        if known := file.execute(sql.KNOWN, key).fetchone():
            evaluated_at, fingerprint, accepted_at, writer, waits = known
            if update.evaluated_at < evaluated_at <= now:  # and the clock was not put back
                fates[self._writer, "superseded"] += bool(update.json)
                return
            fresh = 0 <= now - accepted_at < self._resend_after_seconds
            if update.json and fingerprint == update.fingerprint and (waits or fresh):
                file.execute(sql.TOUCH, (update.evaluated_at, *key))
                fates[self._writer, "unchanged"] += 1
                return
            fates[writer, "superseded"] += waits
        moment, delivered_at = update.evaluated_at, 0.0 if update.json else now
        state = (moment, moment, update.fingerprint, delivered_at, self._writer, update.json or None)
        file.execute(sql.STATE, (*key, *state))

    def _batch(self, file: sqlite3.Connection, resting: Container[Destination]) -> list[Update]:
        for url, project, last in file.execute(sql.IN_TURN, (self._last,)).fetchall():
            if (destination := Destination(url, project)) not in resting:
                rows = file.execute(sql.OLDEST, (last, MAX_BATCH_UPDATES))
                batch = fitting(Update._make((*row[:4], destination, row[4])) for row in rows)
                rows.close()
                if batch:
                    self._last, self._flies = last, True
                    more = sql.pending(file, last) > len(batch)
                    self._many = len(batch) if more else MAX_BATCH_UPDATES
                    return batch
        return []

    def _keep_rows(self, file: sqlite3.Connection) -> None:
        """Keep the bounds, of what waits and of what is remembered."""
        if (too_many := sql.pending(file, self._here) - MAX_ROWS) > 0:
            self._report.lose(FULL, sql.drop(file, self._here, too_many))
        if self._file.ballot is not None and monotonic() - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = monotonic()
            file.execute(sql.FORGET, (time() - REMEMBER_SECONDS, MAX_ROWS))
            file.execute(sql.FORGET_WRITERS, (self._writer,))
