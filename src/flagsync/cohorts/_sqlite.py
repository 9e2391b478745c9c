"""The membership store in a file: SQLite, shared by the processes of a host.

Guarantee: what is stored survives crash and power failure; a whole cohort is replaced in constant time.
Boundary: local file systems.
"""

import json
import os
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Self, TypeAlias

from flagsync._database import prepare, read
from flagsync._host import SharedFile
from flagsync._report import Reporter
from flagsync.cohorts import _schema as sql
from flagsync.cohorts._sessions import complete, open_session, sweep
from flagsync.cohorts._store import TraitChange
from flagsync.cohorts._traits import Cohort, Known, TraitKeys
from flagsync.cohorts._update import CohortUpdate
from flagsync.exceptions import StoreUnavailableError

PAGE_ROWS = 10_000
_Version: TypeAlias = tuple[int | None, list[Known]]


class SQLiteStore:
    """A ``MembershipStore`` in a file on a local disk, made if it is not there; a context manager.

    Each process that uses the file has its own, with the same options. It may be built before a fork.

    Args:
        path: Of the file. Readable by its owner only: it holds identifiers of users.
        traits: Cohort id, or name at first sight -> trait key; by default ``mixpanel_cohort_`` and that name.
        takes: (cohort id, name) -> whether the cohort is taken; by default, all are.

    Raises:
        ValueError: The file belongs to somebody else or cannot be made, or an option cannot be right.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        traits: Mapping[str, str] = MappingProxyType({}),
        takes: Callable[[str, str], bool] = lambda *_: True,
    ) -> None:
        self._path = os.path.realpath(os.fsdecode(path))
        self._keys = TraitKeys(traits, takes)
        prepare(self._path, sql.COHORTS).close()
        # By process: the one that reads does not wait for the one that writes.
        self._files: dict[int, tuple[SharedFile, SharedFile]] = {}
        self._report = Reporter(None)
        self._known: _Version = (None, [])
        self._taken_of: tuple[_Version, dict[int, Cohort]] = (self._known, {})
        weakref.finalize(self, _release, self._files).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file until it is needed again."""
        for file in self._files.get(os.getpid(), ()):
            with file.lock:
                file.disconnect()

    def apply(self, update: CohortUpdate) -> None:
        """Store a call of the webhook; it is on the disk when this returns."""
        takes = self._keys.takes(update.cohort_id, update.cohort_name)
        with self._open(write=True) as file:
            if (found := self._find_cohort(file, update, make=takes)) is not None:
                self._store(file, *found, update)
        self._report.losses()

    def _store(self, file: sqlite3.Connection, cohort: int, floor: int, update: CohortUpdate) -> None:
        whole = update.action == "members"
        seen = (
            open_session(file, cohort, floor, update, self._report) if whole else read(file, sql.LATEST, cohort)
        )
        if seen is None:
            return
        values = {"cohort": cohort, "members": json.dumps(update.members, ensure_ascii=False), "seen": seen}
        leaves = update.action == "remove_members"
        if read(file, sql.LISTING):
            file.execute(sql.LEAVERS if leaves else sql.JOINERS, values)
        file.execute(sql.LEAVE if leaves else sql.JOIN, values)
        if whole:
            complete(file, cohort, seen, update.pages)
        sweep(file)
        file.execute(sql.CHANGED)

    def cohorts(self) -> Sequence[Cohort]:
        """The cohorts that are taken, in the order of first sight."""
        with self._open() as file:
            self._notice(file)
        return [*self._taken().values()]

    def members(self, cohort_id: str) -> Iterator[str]:
        """The identifiers in a cohort, in the order of their characters."""
        after = ""
        while True:
            with self._open() as file:
                rows = file.execute(sql.MEMBERS, (cohort_id, after, PAGE_ROWS)).fetchall()
            yield from (identifier for [identifier] in rows)
            if len(rows) < PAGE_ROWS:
                return
            [after] = rows[-1]

    def version(self) -> int:
        """A number that is another one after each change."""
        with self._open() as file:
            return read(file, sql.VERSION)

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        """Identifier -> trait key of every cohort that is taken -> whether the identity is a member."""
        with self._open() as file:
            found = {who: {number for [number] in file.execute(sql.COHORTS_OF, (who,))} for who in identifiers}
            self._notice(file)
        cohorts = self._taken().items()
        return {who: {c.trait_key: number in found[who] for number, c in cohorts} for who in found}

    def list_changes(self) -> None:
        """Keep a list of changes from now on, if there is none; it begins with all members."""
        with self._open(write=True) as file:
            if file.execute(sql.LIST).rowcount:
                file.execute(sql.LIST_ALL)

    def sweep(self) -> bool:
        """Put some of those on the list who left with a whole session; whether there are more."""
        with self._open(write=True) as file:
            return sweep(file)

    def is_elected(self) -> bool:
        """Whether this process may take changes, from now on and until it ends or resigns."""
        with self._open():
            return self._file(write=True).elected()

    def resign(self) -> None:
        """Let another process take changes."""
        self._file(write=True).resign()

    def bounds(self) -> tuple[int, int] | None:
        """The first and the last number on the list."""
        with self._open() as file:
            first, last = file.execute(sql.BOUNDS).fetchone()
            return None if first is None else (first, last)

    def pending(self) -> int:
        """How many entries the list has."""
        with self._open() as file:
            return read(file, sql.PENDING)

    def take(self, limit: int) -> list[TraitChange]:
        """The first entries of the list, with what holds now, if this process is elected."""
        while self.is_elected():
            with self._open(write=True) as file:
                rows = file.execute(sql.OLDEST, (limit,)).fetchall()
                file.execute(sql.FLY, (True,))
                self._notice(file)  # all cohorts that the rows can be of
            taken, changes, void = self._taken(), dict[tuple[str, str], TraitChange](), list[int]()
            for number, cohort, identifier, is_member in rows:
                if cohort in taken:
                    key = identifier, taken[cohort].trait_key
                    numbers = changes[key].numbers if key in changes else ()
                    changes[key] = TraitChange(*key, bool(is_member), (*numbers, number))
                else:
                    void.append(number)
            if void or not changes:
                self._settle(void, sure=not changes)
            if changes or not rows:
                return [*changes.values()]
        return []

    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        """Take changes off the list; ``sure`` if none that were taken may still be on their way."""
        self._settle([number for change in changes for number in change.numbers], sure=sure)

    def is_unsure(self) -> bool:
        """Whether changes that were taken by a process that died may still be on their way."""
        with self._open() as file:
            return bool(read(file, sql.IN_FLIGHT))

    def _settle(self, numbers: list[int], *, sure: bool) -> None:
        with self._open(write=True) as file:
            file.execute(sql.SETTLE, (json.dumps(numbers),))
            file.execute(sql.FLY, (not sure,))

    def _file(self, *, write: bool) -> SharedFile:
        if (pid := os.getpid()) not in self._files:
            pair = SharedFile(self._path, sql.COHORTS), SharedFile(self._path, sql.COHORTS)
            self._files.setdefault(pid, pair)
        return self._files[pid][write]

    @contextmanager
    def _open(self, *, write: bool = False) -> Iterator[sqlite3.Connection]:
        """The file; in a transaction that is committed at the end, if it is to write."""
        file = self._file(write=write)
        with file.lock:
            try:
                connection = file.open()
                if write:
                    connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.commit()
            except BaseException as error:
                file.disconnect()  # which rolls back
                if isinstance(error, (sqlite3.Error, OSError)):
                    raise StoreUnavailableError(f"The file of cohorts cannot be used ({error})") from error
                raise

    def _notice(self, file: sqlite3.Connection) -> None:
        """Read which cohorts there are, if that may have changed."""
        version = read(file, sql.VERSION)
        if version != self._known[0]:
            self._known = version, [Known(*row) for row in file.execute(sql.KNOWN)]

    def _taken(self) -> dict[int, Cohort]:
        """The cohorts that are taken, by number; asks the application, so without a lock."""
        known, taken = self._taken_of
        if known is not self._known:
            known = self._known
            self._taken_of = known, (taken := self._keys.of(known[1]))
        return taken

    def _find_cohort(
        self, file: sqlite3.Connection, update: CohortUpdate, *, make: bool
    ) -> tuple[int, int] | None:
        """Number and floor of the cohort; None if it is not known, and not to be made."""
        if make:
            file.execute(sql.NEW_COHORT, (update.cohort_id, update.cohort_name, update.cohort_name))
        if file.execute(sql.RENAME, {"id": update.cohort_id, "name": update.cohort_name}).rowcount:
            file.execute(sql.CHANGED)
        return file.execute(sql.COHORT, (update.cohort_id,)).fetchone()  # type: ignore[no-any-return]


def _release(files: Mapping[int, tuple[SharedFile, SharedFile]]) -> None:
    """Leave the file to others; called by the garbage collector, who must not wait."""
    for file in files.get(os.getpid(), ()):
        file.resign()
        if file.lock.acquire(blocking=False):
            file.disconnect()
            file.lock.release()
