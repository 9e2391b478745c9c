"""The tables of the change log of cohorts in PostgreSQL.

Guarantee: it keeps the contracts of ``LogDatabase`` and ``LogTables``. A process whose lease another one has got
changes nothing. Boundary: ``change_log`` decides what is claimed.
"""

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from flagsync._postgres.database import Transaction
from flagsync.cohorts.change_log import MAX_POSTPONED_SECONDS, due_in
from flagsync.cohorts.log_tables import Entry, Environment, Unsettled
from flagsync.cohorts.postgres import schema as sql
from flagsync.cohorts.postgres.database import CohortDatabase
from flagsync.cohorts.postgres.tables import CohortTables, identifier_of
from flagsync.cohorts.store import TraitChange

LAST = 2**63 - 1  # no position is higher


class LogTables:
    """The tables in one transaction.

    Args:
        transaction: A transaction on them.
        name: The name of the environment.
        owner: The name of this process in its lease.
    """

    def __init__(self, transaction: Transaction, name: str, owner: str) -> None:
        self._transaction, self._name, self._owner = transaction, name, owner
        self.cohorts = CohortTables(transaction)

    def start(self) -> None:
        """Start the log, unless it was started."""
        self._transaction.run(sql.START_LOG, self._name)

    def restart(self) -> None:
        """Start the log again."""
        self._transaction.run(sql.RESTART_LOG, self._name)

    def environment(self) -> Environment | None:
        """Return the environment, if its log was started."""
        return self._environment(sql.ENVIRONMENT, self._name)

    def own_environment(self) -> Environment | None:
        """Return and lock the environment, if its log was started and nobody else has got the lease."""
        return self._environment(sql.OWN_ENVIRONMENT, self._name, self._owner)

    def position(self) -> int:
        """Return the position of the last change."""
        return int(self._transaction.rows(sql.POSITION)[0][0])

    def is_swept(self) -> bool:
        """Return whether there is nothing to sweep."""
        return bool(self._transaction.rows(sql.IS_SWEPT)[0][0])

    def first_unclaimed(self, environment: Environment) -> int | None:
        """Return the position of the first entry that is not claimed."""
        rows = self._transaction.rows(sql.FIRST_UNCLAIMED, environment.cursor, LAST, environment.began)
        return rows[0][0] if rows else None

    def count_unclaimed(self, environment: Environment) -> int:
        """Return how many entries are not claimed."""
        self._transaction.run_script(sql.COUNTING)
        return int(self._transaction.rows(sql.COUNT_UNCLAIMED, environment.cursor, environment.began)[0][0])

    def unsettled(self, environment: Environment) -> Unsettled:
        """Return what is claimed."""
        [[count, first, seconds]] = self._transaction.rows(sql.UNSETTLED, environment.number)
        return Unsettled(count, first, due_in(seconds))

    def last_to_look_at(self, environment: Environment, rows: int) -> int | None:
        """Return the position that is some members behind the first one after the cursor."""
        found = self._transaction.rows(sql.LAST_TO_LOOK_AT, environment.cursor, rows)
        return found[0][0] if found else None

    def claim_up_to(self, environment: Environment, last: int) -> None:
        """Give all entries up to a position a row, and move the cursor there."""
        number, cursor, began = environment
        self._transaction.run(sql.CLAIM_UP_TO, number, cursor, last, began)
        self._transaction.run(sql.MOVE_CURSOR, last, number)

    def due(self, environment: Environment, limit: int) -> list[Entry]:
        """Return the first due changes that were not tried before."""
        return self._due(sql.FIRST_DUE, environment, limit)

    def due_again(self, environment: Environment) -> list[Entry]:
        """Return the due change that was tried before and has waited longest, if there is one."""
        return self._due(sql.FIRST_TRIED, environment, 1)

    def mark_unsure(self, environment: Environment, positions: Sequence[int]) -> None:
        """Mark claimed entries as unsure."""
        self._transaction.run(sql.MARK_UNSURE, environment.number, positions)

    def settle(self, environment: Environment, positions: Sequence[int]) -> None:
        """Delete the rows of claimed entries."""
        self._transaction.run(sql.SETTLE, environment.number, positions)

    def postpone(self, environment: Environment, changes: Collection[TraitChange], seconds: float) -> None:
        """Keep claimed entries as given, and due after some time."""
        alike = defaultdict[tuple[bool, int], list[int]](list)
        for change in changes:
            alike[change.is_unsure, change.tries].append(change.position)
        for state, positions in alike.items():
            self._transaction.run(sql.POSTPONE, seconds, seconds, *state, environment.number, positions)

    def _due(self, query: str, environment: Environment, limit: int) -> list[Entry]:
        rows = self._transaction.rows(query, environment.number, MAX_POSTPONED_SECONDS, limit)
        return [
            Entry(position, cohort, identifier_of(key, long), *state)
            for position, cohort, key, long, *state in rows
        ]

    def _environment(self, query: str, *values: object) -> Environment | None:
        rows = self._transaction.rows(query, *values)
        return Environment(*rows[0]) if rows else None


class LogDatabase:
    """The database of a store, as the log of one environment uses it.

    Args:
        database: The database.
        name: The name of the environment.
    """

    def __init__(self, database: CohortDatabase, name: str) -> None:
        self._database, self._name = database, name

    @contextmanager
    def read(self) -> Iterator[LogTables]:
        """Begin to read. No evaluation waits for it, and it may count a million entries."""
        with self._database.work() as transaction:
            yield LogTables(transaction, self._name, self._database.process)

    @contextmanager
    def write(self) -> Iterator[LogTables]:
        """Begin a transaction that is committed at the end."""
        with self._database.work() as transaction:
            tables = LogTables(transaction, self._name, self._database.process)
            yield tables
            tables.cohorts.finish()
