"""The membership store in a file: SQLite, shared by the processes of a host.

Guarantee: what is stored survives a crash and a power failure; a whole cohort is replaced in constant time.
Boundary: local file systems.
"""

import os
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from flagsync._clock import time
from flagsync._files.sqlite import BUSY_SECONDS, read
from flagsync._report import Reporter
from flagsync.cohorts.catalog import CohortCatalog
from flagsync.cohorts.change_log import StoredChangeLog, name_of
from flagsync.cohorts.keys import Cohort, TraitKeys
from flagsync.cohorts.sessions import Sessions
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.sqlite.file import CohortFile
from flagsync.cohorts.sqlite.lease import LogLease
from flagsync.cohorts.sqlite.log_tables import LogFile
from flagsync.cohorts.sqlite.tables import CohortTables
from flagsync.cohorts.update import CohortUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much a store does at once, and how much it remembers.

    Attributes:
        busy_seconds: How long one operation waits for another process.
        kept_sessions: How many sessions of a cohort are remembered, so that their late pages are recognised.
        swept_rows: How many members one transaction looks at, to find those who left with a whole cohort, or who have
            changed.
        page_rows: How many members ``members`` reads at a time.
        clock: Returns the time in seconds at which postponed changes are due, the same in all processes and after a
            restart.
    """

    busy_seconds: float = BUSY_SECONDS
    kept_sessions: int = 100
    swept_rows: int = 2000
    page_rows: int = 10_000
    clock: Callable[[], float] = time


class SQLiteStore:
    """A ``MembershipStore`` in a file on a local disk; as a context manager it closes itself on exit.

    Each process that uses the file builds its own store, with the same options. It may be built before a fork.

    Args:
        path: Path of the file, which is created if there is none. Only its owner can read it: it holds identifiers of
            users.
        traits: Cohort id, or name when first seen -> trait key; by default ``mixpanel_cohort_`` and that name.
        takes: (cohort id, name) -> whether the cohort is included; by default, all are.
        limits: How much is done at once.

    Raises:
        ValueError: The file belongs to another user or application or cannot be created, an option is invalid, or
            Python's SQLite is older than 3.31.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        traits: Mapping[str, str] = MappingProxyType({}),
        takes: Callable[[str, str], bool] = lambda *_: True,
        limits: StoreLimits = StoreLimits(),
    ) -> None:
        self._catalog = CohortCatalog(TraitKeys(traits, takes))
        self._file = CohortFile(os.path.realpath(os.fsdecode(path)), limits.busy_seconds)
        self._limits, self._report = limits, Reporter(None)
        self._sessions = Sessions(
            kept_sessions=limits.kept_sessions, swept_rows=limits.swept_rows, report=self._report
        )
        weakref.finalize(self, self._file.abandon).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file until it is needed again."""
        self._file.disconnect()

    def apply(self, update: CohortUpdate) -> None:
        """Store one call of the webhook; it is on the disk when this returns."""
        is_included = self._catalog.includes(update.cohort_id, update.cohort_name)
        with self._file.write() as file:
            tables = CohortTables(file)
            if (cohort := tables.cohort(update, make=is_included)) is not None:
                self._sessions.apply(tables, cohort, update)
        self._report.report_deferred()

    def cohorts(self) -> Sequence[Cohort]:
        """Return the included cohorts, in the order in which they were first seen."""
        with self._file.read() as file:
            self._catalog.refresh(CohortTables(file))
        return [*self._catalog.included().values()]

    def members(self, cohort_id: str) -> Iterator[str]:
        """Yield the identifiers in a cohort, in the order of their characters."""
        after = ""
        while True:
            with self._file.read() as file:
                rows = file.execute(sql.MEMBERS, (cohort_id, after, self._limits.page_rows)).fetchall()
            yield from (identifier for [identifier] in rows)
            if len(rows) < self._limits.page_rows:
                return
            [after] = rows[-1]

    def version(self) -> int:
        """Return a number that differs after each change."""
        with self._file.read() as file:
            return read(file, sql.VERSION)

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        """Return identifier -> trait key of every included cohort -> whether the identity is a member."""
        with self._file.read() as file:
            found = {who: {number for [number] in file.execute(sql.COHORTS_OF, (who,))} for who in identifiers}
            self._catalog.refresh(CohortTables(file))
        cohorts = self._catalog.included().items()
        return {who: {c.trait_key: number in found[who] for number, c in cohorts} for who in found}

    def change_log(self, environment: str) -> StoredChangeLog:
        """Return the change log of an environment of Flagsmith."""
        name, limits = name_of(environment), self._limits
        file, lease = LogFile(self._file, name, limits.clock), LogLease(self._file.path, name)
        return StoredChangeLog(file, lease, self._catalog, self._sessions, rows=limits.swept_rows)
