"""The membership store in a file: SQLite, shared by the processes of a host.

Guarantee: what is stored survives a crash and a power failure; a whole cohort is replaced in constant time.
Boundary: local file systems.
"""

import json
import os
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, Self

from flagsync._files.sqlite import BUSY_SECONDS, read
from flagsync._report import Reporter
from flagsync.cohorts.keys import Cohort, TraitKeys
from flagsync.cohorts.sessions import Sessions
from flagsync.cohorts.sqlite import schema as sql
from flagsync.cohorts.sqlite.catalog import CohortCatalog
from flagsync.cohorts.sqlite.file import CohortFile
from flagsync.cohorts.sqlite.tables import CohortTables
from flagsync.cohorts.store import LogState, TraitChange
from flagsync.cohorts.update import CohortUpdate
from flagsync.exceptions import StoreUnavailableError


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much a store does at once, and how much it remembers.

    Attributes:
        busy_seconds: How long one operation waits for another process.
        kept_sessions: How many sessions of a cohort are remembered, so that their late pages are recognised.
        swept_rows: How many rows one transaction looks at, to delete those who left with a whole cohort.
        page_rows: How many members ``members`` reads at a time.
    """

    busy_seconds: float = BUSY_SECONDS
    kept_sessions: int = 100
    swept_rows: int = 2000
    page_rows: int = 10_000


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
        ValueError: The file belongs to somebody else or cannot be made, an option is invalid, or Python's SQLite is
            older than 3.31.
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
        self._page_rows, self._report = limits.page_rows, Reporter(None)
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
            self._catalog.refresh(file)
        return [*self._catalog.included().values()]

    def members(self, cohort_id: str) -> Iterator[str]:
        """Yield the identifiers in a cohort, in the order of their characters."""
        after = ""
        while True:
            with self._file.read() as file:
                rows = file.execute(sql.MEMBERS, (cohort_id, after, self._page_rows)).fetchall()
            yield from (identifier for [identifier] in rows)
            if len(rows) < self._page_rows:
                return
            [after] = rows[-1]

    def version(self) -> int:
        """Return a number that is another one after each change."""
        with self._file.read() as file:
            return read(file, sql.VERSION)

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        """Return identifier -> trait key of every included cohort -> whether the identity is a member."""
        with self._file.read() as file:
            found = {who: {number for [number] in file.execute(sql.COHORTS_OF, (who,))} for who in identifiers}
            self._catalog.refresh(file)
        cohorts = self._catalog.included().items()
        return {who: {c.trait_key: number in found[who] for number, c in cohorts} for who in found}

    def start_log(self) -> None:
        """Have changes logged from now on, beginning with all present members."""
        with self._file.write() as file:
            CohortTables(file).start_log()

    def sweep(self) -> bool:
        """Put some of those on the log who were too many to be put there at once; return whether there may be more."""
        with self._file.write() as file:
            return self._sessions.sweep(CohortTables(file))

    def log_state(self) -> LogState:
        """Return where the change log begins and ends."""
        with self._file.read() as file:
            first, last, is_complete, is_unsure = file.execute(sql.LOG_STATE).fetchone()
        return LogState(first, last, bool(is_complete), bool(is_unsure))

    def pending(self) -> int:
        """Return how many entries the change log has."""
        with self._file.read() as file:
            return read(file, sql.PENDING)

    def try_acquire_lease(self) -> bool:
        """Become the process that claims changes, if no other one is; return whether this process is the one."""
        try:
            return self._file.lease.try_acquire()
        except OSError as error:
            raise StoreUnavailableError(f"The lock file of the cohorts cannot be used ({error})") from error

    def release_lease(self) -> None:
        """Let another process claim changes."""
        self._file.lease.release()

    def claim(self, limit: int) -> list[TraitChange]:
        """Return what the first entries of the change log say now; an empty list without the lease."""
        while self.try_acquire_lease():
            with self._file.write() as file:
                entries = [_Entry(*row) for row in file.execute(sql.FIRST_CHANGES, (limit,))]
                file.execute(sql.SET_IN_FLIGHT, (True,))
                self._catalog.refresh(file)  # all cohorts that the entries can be of
            changes, left_out = _changes(entries, self._catalog.included())
            if left_out or not changes:
                self._settle(left_out, sure=not changes)
            if changes or not entries:
                return changes
        return []

    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        """Take the entries of changes off the log; ``sure`` if nothing that was claimed is on its way any more."""
        self._settle([position for change in changes for position in change.positions], sure=sure)

    def _settle(self, positions: list[int], *, sure: bool) -> None:
        with self._file.write() as file:
            file.execute(sql.SETTLE, (json.dumps(positions),))
            file.execute(sql.SET_IN_FLIGHT, (not sure,))


class _Entry(NamedTuple):
    """An entry of the change log, and whether it is about a member now."""

    position: int
    cohort: int
    identifier: str
    is_member: bool


def _changes(entries: Iterable[_Entry], included: Mapping[int, Cohort]) -> tuple[list[TraitChange], list[int]]:
    """Return what entries say, and the positions of those whose cohort is left out."""
    changes, left_out = dict[tuple[str, int], TraitChange](), list[int]()
    for entry in entries:
        if (cohort := included.get(entry.cohort)) is None:
            left_out.append(entry.position)
            continue
        known = changes.get((entry.identifier, entry.cohort))
        positions = (*(known.positions if known else ()), entry.position)
        changes[entry.identifier, entry.cohort] = TraitChange(
            entry.identifier, cohort.trait_key, bool(entry.is_member), positions
        )
    return [*changes.values()], left_out
