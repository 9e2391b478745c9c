"""The change log of a store with tables: what an environment of Flagsmith has not been told yet.

The members themselves are the log, in the order in which they changed. A claimed entry has a row of its own until it is
settled.

Guarantee: it keeps the contract of ``ChangeLog``, even if the process dies at any moment. Boundary: how the tables are
stored is behind ``LogTables``, and who may claim is behind ``Lease``.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from math import inf

from flagsync.cohorts.catalog import CohortCatalog
from flagsync.cohorts.keys import Cohort
from flagsync.cohorts.log_tables import Entry, Environment, Lease, LogDatabase, LogTables
from flagsync.cohorts.sessions import Sessions
from flagsync.cohorts.store import LogState, TraitChange

MAX_POSTPONED_SECONDS = 86_400.0  # what is due later was postponed before the clock was set back


class StoredChangeLog:
    """The ``ChangeLog`` of one environment.

    Args:
        database: Where its tables are.
        lease: Who may claim.
        catalog: The cohorts of the store.
        sessions: Sweeps the tables.
        rows: How many members one transaction looks at.
    """

    def __init__(
        self, database: LogDatabase, lease: Lease, catalog: CohortCatalog, sessions: Sessions, *, rows: int
    ) -> None:
        self._database, self._lease, self._rows = database, lease, rows
        self._catalog, self._sessions = catalog, sessions
        self._was_tried = False  # the last claimed change

    @property
    def lease_seconds(self) -> float:
        """How long a process may write after it acquired the lease; 0.0 if the lease ends with its process."""
        return self._lease.seconds

    def start(self) -> None:
        """Start the log with all current members."""
        with self._database.write() as tables:
            tables.start()

    def restart(self) -> None:
        """Start the log again, with current and former members."""
        with self._database.write() as tables:
            tables.restart()

    def sweep(self) -> bool:
        """Log some of those who left when a whole cohort was replaced; return whether there may be more."""
        with self._database.write() as tables:
            return self._sessions.sweep(tables.cohorts)

    def state(self) -> LogState:
        """Return where the log begins and ends."""
        with self._database.read() as tables:
            last, is_swept = tables.position(), tables.is_swept()
            if (environment := tables.environment()) is None:
                return LogState(None, last, is_complete=False, due_in_seconds=inf)
            unclaimed, unsettled = tables.first_unclaimed(environment), tables.unsettled(environment)
        firsts = [first for first in (unsettled.first, unclaimed) if first is not None]
        seconds = unsettled.due_in_seconds if unclaimed is None else 0.0
        return LogState(min(firsts, default=None), last, is_swept, seconds)

    def pending(self) -> int:
        """Return how many entries are not settled."""
        with self._database.read() as tables:
            if (environment := tables.environment()) is None:
                return 0
            return tables.unsettled(environment).entries + tables.count_unclaimed(environment)

    def try_acquire_lease(self) -> bool:
        """Acquire the lease if no other process holds it; return whether this process holds it."""
        return self._lease.try_acquire()

    def release_lease(self) -> None:
        """Release the lease, so that another process can claim entries."""
        self._lease.release()

    def claim(self, limit: int) -> list[TraitChange]:
        """Return the first entries as they are now; none without the lease."""
        while self.try_acquire_lease():
            with self._database.write() as tables:
                entries = self._claim(tables, limit)
                self._catalog.refresh(tables.cohorts)  # now it has the cohort of every entry
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
        with self._database.write() as tables:
            if (environment := tables.own_environment()) is not None:
                tables.postpone(environment, changes, seconds)

    def _claim(self, tables: LogTables, limit: int) -> list[Entry] | None:
        """Return a change that was tried before, or the first others, in turn if both wait; mark them as unsure.

        None means that more members must be looked at first, in another transaction.
        """
        if (environment := tables.own_environment()) is None:
            return []
        entries = tried = tables.due_again(environment)
        if self._was_tried or not tried:
            others = tables.due(environment, limit)
            if len(others) < limit and self._move_cursor(tables, environment):
                return None
            entries = others or tried
        self._was_tried = entries is tried
        tables.mark_unsure(environment, [entry.position for entry in entries])
        return entries

    def _move_cursor(self, tables: LogTables, environment: Environment) -> bool:
        """Give the first unclaimed entries a row; return False if all members were looked at before."""
        position = tables.position()
        if environment.cursor == position:
            return False
        last = tables.last_to_look_at(environment, self._rows)
        tables.claim_up_to(environment, position if last is None else last)
        return True

    def _settle(self, positions: Sequence[int]) -> None:
        with self._database.write() as tables:
            if (environment := tables.own_environment()) is not None:
                tables.settle(environment, positions)


def name_of(environment: str) -> str:
    """Return how tables and lock files name an environment."""
    return blake2b(environment.encode(), digest_size=8).hexdigest()


def due_in(seconds: float | None) -> float:
    """Return when a change is due: at once if it should be long ago, or was postponed by a clock that was set back."""
    if seconds is None:
        return inf
    return 0.0 if seconds > MAX_POSTPONED_SECONDS else max(0.0, seconds)


def _changes(entries: Iterable[Entry], included: Mapping[int, Cohort]) -> tuple[list[TraitChange], list[int]]:
    """Return what entries say, and the positions of those whose cohort is left out."""
    changes, left_out = list[TraitChange](), list[int]()
    for position, number, identifier, is_member, is_unsure, tries in entries:
        if (cohort := included.get(number)) is None:
            left_out.append(position)
        else:
            key = cohort.trait_key
            changes.append(TraitChange(identifier, key, is_member, position, is_unsure, tries))
    return changes, left_out
