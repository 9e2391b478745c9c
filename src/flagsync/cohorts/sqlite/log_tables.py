"""The tables of the change log in a file of cohorts.

Guarantee: it keeps the contracts of ``LogDatabase`` and ``LogTables``. Boundary: ``change_log`` decides what is
claimed.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from flagsync._files.sqlite import read
from flagsync.cohorts.change_log import MAX_POSTPONED_SECONDS, due_in
from flagsync.cohorts.log_tables import Entry, Environment, Unsettled
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.sqlite.file import CohortFile
from flagsync.cohorts.sqlite.tables import CohortTables
from flagsync.cohorts.store import TraitChange


class LogFile:
    """A file of cohorts, as the log of one environment uses it: a ``LogDatabase``.

    Args:
        file: The file.
        name: The name of the environment.
        clock: Returns the time in seconds, the same in all processes and after a restart.
    """

    def __init__(self, file: CohortFile, name: str, clock: Callable[[], float]) -> None:
        self._file, self._name, self._clock = file, name, clock

    @contextmanager
    def read(self) -> Iterator["LogTables"]:
        """Use the connection that reads."""
        with self._file.read() as file:
            yield LogTables(file, self._name, self._clock())

    @contextmanager
    def write(self) -> Iterator["LogTables"]:
        """Use the connection that writes, in a transaction."""
        with self._file.write() as file:
            yield LogTables(file, self._name, self._clock())


class LogTables:
    """The tables in one transaction.

    Args:
        file: A connection in a transaction.
        name: The name of the environment.
        now: The time in seconds.
    """

    def __init__(self, file: sqlite3.Cursor, name: str, now: float) -> None:
        self._file, self._name, self._now = file, name, now

    @cached_property
    def cohorts(self) -> CohortTables:
        """The tables that all environments share."""
        return CohortTables(self._file)

    def start(self) -> None:
        """Start the log, unless it was started."""
        self._file.execute(sql.START_LOG, (self._name,))

    def restart(self) -> None:
        """Start the log again."""
        self._file.execute(sql.RESTART_LOG, (self._name,))

    def environment(self) -> Environment | None:
        """Return the environment, if its log was started."""
        row = self._file.execute(sql.ENVIRONMENT, (self._name,)).fetchone()
        return None if row is None else Environment(*row)

    def own_environment(self) -> Environment | None:
        """Return the environment. The kernel releases the lease no earlier than its process ends."""
        return self.environment()

    def position(self) -> int:
        """Return the position of the last change."""
        return read(self._file, sql.POSITION)

    def is_swept(self) -> bool:
        """Return whether there is nothing to sweep."""
        return bool(read(self._file, sql.IS_SWEPT))

    def first_unclaimed(self, environment: Environment) -> int | None:
        """Return the position of the first entry that is not claimed."""
        row = self._file.execute(sql.FIRST_UNCLAIMED, environment._asdict()).fetchone()
        return None if row is None else row[0]

    def count_unclaimed(self, environment: Environment) -> int:
        """Return how many entries are not claimed."""
        return int(self._file.execute(sql.COUNT_UNCLAIMED, environment._asdict()).fetchone()[0])

    def unsettled(self, environment: Environment) -> Unsettled:
        """Return what is claimed."""
        count, first, due = self._file.execute(sql.COUNT_UNSETTLED, (environment.number,)).fetchone()
        return Unsettled(count, first, due_in(None if due is None else due - self._now))

    def last_to_look_at(self, environment: Environment, rows: int) -> int | None:
        """Return the position that is some members behind the first one after the cursor."""
        bounds = {"cursor": environment.cursor, "rows": rows}
        row = self._file.execute(sql.LAST_TO_LOOK_AT, bounds).fetchone()
        return None if row is None else row[0]

    def claim_up_to(self, environment: Environment, last: int) -> None:
        """Give all entries up to a position a row, and move the cursor there."""
        values = {**environment._asdict(), "last": last, "now": self._now}
        self._file.execute(sql.CLAIM_UP_TO, values)
        self._file.execute(sql.MOVE_CURSOR, values)

    def due(self, environment: Environment, limit: int) -> list[Entry]:
        """Return the first due changes that were not tried before."""
        return self._due(sql.FIRST_DUE, environment, limit)

    def due_again(self, environment: Environment) -> list[Entry]:
        """Return the due change that was tried before and has waited longest, if there is one."""
        return self._due(sql.FIRST_TRIED, environment, 1)

    def mark_unsure(self, environment: Environment, positions: Sequence[int]) -> None:
        """Mark claimed entries as unsure."""
        self._file.execute(sql.MARK_UNSURE, (environment.number, json.dumps(positions)))

    def settle(self, environment: Environment, positions: Sequence[int]) -> None:
        """Delete the rows of claimed entries."""
        self._file.execute(sql.SETTLE, (environment.number, json.dumps(positions)))

    def postpone(self, environment: Environment, changes: Collection[TraitChange], seconds: float) -> None:
        """Keep claimed entries as given, and due after some time."""
        due, number = self._now + seconds if seconds else 0.0, environment.number
        rows = [(due, change.is_unsure, change.tries, number, change.position) for change in changes]
        self._file.executemany(sql.POSTPONE, rows)

    def _due(self, query: str, environment: Environment, limit: int) -> list[Entry]:
        bounds = {"limit": limit, "now": self._now, "too_late": self._now + MAX_POSTPONED_SECONDS}
        rows = self._file.execute(query, {**environment._asdict(), **bounds}).fetchall()
        return [
            Entry(position, cohort, identifier, bool(is_member), bool(is_unsure), tries)
            for position, cohort, identifier, is_member, is_unsure, tries in rows
        ]
