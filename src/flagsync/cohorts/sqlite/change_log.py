"""The change log of a file of cohorts: what an environment of Flagsmith has not been told yet.

The members themselves are the log, in the order in which they changed. A claimed entry has a row of its own until it is
settled.

Guarantee: it keeps the contract of ``ChangeLog``, even if the process dies at any moment. Boundary: local file systems.
"""

import json
import sqlite3
import weakref
from collections.abc import Callable, Collection, Iterable, Mapping
from hashlib import blake2b
from math import inf
from typing import NamedTuple

from flagsync._files.shared import SharedFile
from flagsync._files.sqlite import read
from flagsync._process import PerProcess
from flagsync.cohorts.keys import Cohort
from flagsync.cohorts.sessions import Sessions
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.sqlite.catalog import CohortCatalog
from flagsync.cohorts.sqlite.file import CohortFile
from flagsync.cohorts.sqlite.tables import CohortTables
from flagsync.cohorts.store import LogState, TraitChange
from flagsync.exceptions import StoreUnavailableError

MAX_POSTPONED_SECONDS = 86_400.0  # what is due later was postponed before the clock was set back


class _Environment(NamedTuple):
    """Which part of the log an environment has claimed."""

    number: int
    cursor: int
    began: int


class _Entry(NamedTuple):
    """A claimed entry, and whether it is about a member now."""

    position: int
    cohort: int
    identifier: str
    is_member: bool
    is_unsure: bool
    tries: int


class SQLiteChangeLog:
    """The ``ChangeLog`` of one environment.

    Args:
        file: The file of the store.
        catalog: Its cohorts.
        sessions: Sweeps the tables.
        environment: The name of the environment.
        rows: How many members one transaction looks at.
        clock: Returns the time in seconds, the same in all processes and after a restart.
    """

    def __init__(
        self,
        file: CohortFile,
        catalog: CohortCatalog,
        sessions: Sessions,
        environment: str,
        *,
        rows: int,
        clock: Callable[[], float],
    ) -> None:
        self._file, self._catalog, self._sessions = file, catalog, sessions
        self._rows, self._clock = rows, clock
        self._name = blake2b(environment.encode(), digest_size=8).hexdigest()
        # This file is never made: only its lease is used, which a forked child leaves to its parent.
        path = f"{file.path}-{self._name}"
        self._leases = PerProcess[SharedFile](lambda _: SharedFile(path, sql.COHORTS))
        weakref.finalize(self, _abandon, self._leases).atexit = False

    def start(self) -> None:
        """Start the log with all current members."""
        with self._file.write() as file:
            file.execute(sql.START_LOG, (self._name,))

    def restart(self) -> None:
        """Start the log again, with current and former members."""
        with self._file.write() as file:
            file.execute(sql.RESTART_LOG, (self._name,))

    def sweep(self) -> bool:
        """Log some of those who left when a whole cohort was replaced; return whether there may be more."""
        with self._file.write() as file:
            return self._sessions.sweep(CohortTables(file))

    def state(self) -> LogState:
        """Return where the log begins and ends."""
        with self._file.read() as file:
            last, is_swept = read(file, sql.POSITION), read(file, sql.IS_SWEPT)
            if (environment := self._environment(file)) is None:
                return LogState(None, last, is_complete=False, due_in_seconds=inf)
            unclaimed = file.execute(sql.FIRST_UNCLAIMED, environment._asdict()).fetchone()
            _, unsettled, due = file.execute(sql.COUNT_UNSETTLED, (environment.number,)).fetchone()
        firsts = [first for first in (unsettled, unclaimed and unclaimed[0]) if first is not None]
        seconds = inf if due is None else max(0.0, due - self._clock())
        if unclaimed or MAX_POSTPONED_SECONDS < seconds < inf:
            seconds = 0.0
        return LogState(min(firsts, default=None), last, bool(is_swept), seconds)

    def pending(self) -> int:
        """Return how many entries are not settled."""
        with self._file.read() as file:
            if (environment := self._environment(file)) is None:
                return 0
            return read(file, sql.COUNT_UNSETTLED, environment.number) + int(
                file.execute(sql.COUNT_UNCLAIMED, environment._asdict()).fetchone()[0]
            )

    def try_acquire_lease(self) -> bool:
        """Acquire the lease if no other process holds it; return whether this process holds it."""
        try:
            return self._leases.get().lease.try_acquire()
        except OSError as error:
            raise StoreUnavailableError(f"The lock file of the cohorts cannot be used ({error})") from error

    def release_lease(self) -> None:
        """Release the lease, so that another process can claim entries."""
        self._leases.get().lease.release()

    def claim(self, limit: int) -> list[TraitChange]:
        """Return the first entries as they are now; none without the lease."""
        while self.try_acquire_lease():
            with self._file.write() as file:
                entries = self._claim(file, limit)
                self._catalog.refresh(file)  # now it has the cohort of every entry
            if entries is None:
                continue
            changes, left_out = _changes(entries, self._catalog.included())
            if left_out:
                self._settle(left_out)
            if changes or not entries:
                return changes
        return []

    def settle(self, changes: Collection[TraitChange]) -> None:
        """Take claimed changes off the log."""
        self._settle([change.position for change in changes])

    def postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        """Keep claimed changes as given, to be claimed after some time."""
        due = self._clock() + seconds if seconds else 0.0
        with self._file.write() as file:
            if (environment := self._environment(file)) is not None:
                number = environment.number
                rows = [(due, change.is_unsure, change.tries, number, change.position) for change in changes]
                file.executemany(sql.POSTPONE, rows)

    def _environment(self, file: sqlite3.Connection) -> _Environment | None:
        row = file.execute(sql.ENVIRONMENT, (self._name,)).fetchone()
        return None if row is None else _Environment(*row)

    def _claim(self, file: sqlite3.Connection, limit: int) -> list[_Entry] | None:
        """Return a change that was tried before, or else the first ones, and mark them as unsure.

        None means that more members must be looked at first, in another transaction.
        """
        if (environment := self._environment(file)) is None:
            return []
        now = self._clock()
        bounds = {"limit": limit, "rows": self._rows, "now": now, "too_late": now + MAX_POSTPONED_SECONDS}
        values = {**environment._asdict(), **bounds}
        rows = file.execute(sql.ONE_TRIED, values).fetchall() or file.execute(sql.FIRST_DUE, values).fetchall()
        entries = [_Entry(*row) for row in rows]
        if (
            len(entries) < limit
            and not any(entry.tries for entry in entries)
            and self._move_cursor(file, values)
        ):
            return None
        positions = json.dumps([entry.position for entry in entries])
        file.execute(sql.MARK_UNSURE, (environment.number, positions))
        return entries

    def _move_cursor(self, file: sqlite3.Connection, values: Mapping[str, float]) -> bool:
        """Give the first unclaimed entries a row; return False if all members were looked at before."""
        position = read(file, sql.POSITION)
        if values["cursor"] == position:
            return False
        row = file.execute(sql.LAST_TO_LOOK_AT, values).fetchone()
        last = position if row is None else row[0]
        file.execute(sql.CLAIM_UP_TO, {**values, "last": last})
        file.execute(sql.MOVE_CURSOR, {**values, "last": last})
        return True

    def _settle(self, positions: list[int]) -> None:
        with self._file.write() as file:
            if (environment := self._environment(file)) is not None:
                file.execute(sql.SETTLE, (environment.number, json.dumps(positions)))


def _changes(entries: Iterable[_Entry], included: Mapping[int, Cohort]) -> tuple[list[TraitChange], list[int]]:
    """Return what entries say, and the positions of those whose cohort is left out."""
    changes, left_out = list[TraitChange](), list[int]()
    for position, number, identifier, is_member, is_unsure, tries in entries:
        if (cohort := included.get(number)) is None:
            left_out.append(position)
        else:
            key, value, unsure = cohort.trait_key, bool(is_member), bool(is_unsure)
            changes.append(TraitChange(identifier, key, value, position, unsure, tries))
    return changes, left_out


def _abandon(leases: PerProcess[SharedFile]) -> None:
    """Release the lease of a garbage-collected log. Takes no lock."""
    if (file := leases.existing()) is not None:
        file.abandon()
