"""The membership store in a PostgreSQL database, shared by the processes of any hosts.

Guarantee: what is stored survives the server, if that keeps what it has committed; a whole cohort is replaced in
constant time. A call returns in time, whatever the server does, and nothing is left in a session, so that pgbouncer may
be in transaction mode. Boundary: a call that raises may have been carried out if the connection was lost at its end;
applying an update twice changes nothing.
"""

import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from flagsync._postgres.places import Pool
from flagsync._report import Reporter
from flagsync.cohorts.catalog import CohortCatalog
from flagsync.cohorts.change_log import StoredChangeLog, name_of
from flagsync.cohorts.keys import Cohort, TraitKeys
from flagsync.cohorts.postgres.database import CohortDatabase
from flagsync.cohorts.postgres.lease import LogLease
from flagsync.cohorts.postgres.log_tables import LogDatabase
from flagsync.cohorts.postgres.schema import COHORTS
from flagsync.cohorts.postgres.tables import CohortTables, identifier_of, key_of
from flagsync.cohorts.sessions import Sessions
from flagsync.cohorts.update import CohortUpdate


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """How much a store does at once, and how much it remembers.

    Attributes:
        busy_seconds: How long reading members takes at most, connecting included.
        work_seconds: How long everything else takes at most, such as storing a page: waiting for other processes
            included, which wait no longer than this for a process that is suspended in the middle of it.
        kept_sessions: How many sessions of a cohort are remembered, so that their late pages are recognised.
        swept_rows: How many members one transaction looks at, to find those who left with a whole cohort, or who have
            changed.
        page_rows: How many members ``members`` reads at a time.
        lease_seconds: How long a ``TraitWriter`` may write before it must renew its lease. After the end of a host,
            another one takes over when this time has passed. A request to Flagsmith takes up to 30 seconds.
    """

    busy_seconds: float = 2.0
    work_seconds: float = 10.0
    kept_sessions: int = 100
    swept_rows: int = 2000
    page_rows: int = 10_000
    lease_seconds: float = 60.0


class PostgresStore:
    """A ``MembershipStore`` in a PostgreSQL database; as a context manager it closes itself on exit.

    Each process of each host builds its own store, with the same options. It may be built before a fork. The server
    need not be there yet: the tables are made when they are needed.

    Args:
        place: A connection string or URL, such as ``postgresql://user:password@host:5432/database``; or a pool of the
            application, which is never closed: anything with a context manager ``connection()`` that lends a connection
            of psycopg 3.
        schema: The schema with the tables. An application that has several projects of Mixpanel gives each its own.
        traits: Cohort id, or name when first seen -> trait key; by default ``mixpanel_cohort_`` and that name.
        takes: (cohort id, name) -> whether the cohort is included; by default, all are.
        limits: How much is done at once.

    Raises:
        ValueError: The connection string, or an option, is invalid.
    """

    def __init__(
        self,
        place: str | Pool,
        *,
        schema: str = "flagsync",
        traits: Mapping[str, str] = MappingProxyType({}),
        takes: Callable[[str, str], bool] = lambda *_: True,
        limits: StoreLimits = StoreLimits(),
    ) -> None:
        self._catalog = CohortCatalog(TraitKeys(traits, takes))
        self._database = CohortDatabase(place, schema, limits.busy_seconds, limits.work_seconds)
        self._schema, self._limits, self._report = schema, limits, Reporter(None)
        self._sessions = Sessions(
            kept_sessions=limits.kept_sessions, swept_rows=limits.swept_rows, report=self._report
        )
        weakref.finalize(self, self._database.close).atexit = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"PostgresStore(schema={self._schema!r})"

    @staticmethod
    def script(schema: str = "flagsync") -> str:
        """Return SQL that makes the tables, for an administrator to run."""
        return COHORTS.script(schema)

    def close(self) -> None:
        """Close the connections that this process has opened, until they are needed again."""
        self._database.close()

    def apply(self, update: CohortUpdate) -> None:
        """Store one call of the webhook; the server has committed it when this returns."""
        is_included = self._catalog.includes(update.cohort_id, update.cohort_name)
        with self._database.work() as transaction:
            tables = CohortTables(transaction)
            if (cohort := tables.cohort(update, make=is_included)) is not None:
                self._sessions.apply(tables, cohort, update)
            tables.finish()
        self._report.report_deferred()

    def cohorts(self) -> Sequence[Cohort]:
        """Return the included cohorts, in the order in which they were first seen."""
        with self._database.read() as transaction:
            self._catalog.refresh(CohortTables(transaction))
        return [*self._catalog.included().values()]

    def members(self, cohort_id: str) -> Iterator[str]:
        """Yield the identifiers in a cohort, in the order of their characters, up to the first 1,000 bytes."""
        after = b""
        while True:
            with self._database.read() as transaction:
                rows = CohortTables(transaction).members(cohort_id, after, self._limits.page_rows)
            yield from (identifier_of(*row) for row in rows)
            if len(rows) < self._limits.page_rows:
                return
            after = rows[-1][0]

    def version(self) -> int:
        """Return a number that differs after each change."""
        with self._database.read() as transaction:
            return CohortTables(transaction).version()

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        """Return identifier -> trait key of every included cohort -> whether the identity is a member."""
        keys = {key_of(identifier): identifier for identifier in identifiers}
        found: dict[str, set[int]] = {identifier: set() for identifier in identifiers}
        with self._database.read() as transaction:
            tables = CohortTables(transaction)
            for key, number in tables.cohorts_of([*keys]):
                found[keys[key]].add(number)
            self._catalog.refresh(tables)
        cohorts = self._catalog.included().items()
        return {who: {c.trait_key: number in found[who] for number, c in cohorts} for who in found}

    def change_log(self, environment: str) -> StoredChangeLog:
        """Return the change log of an environment of Flagsmith."""
        name, limits = name_of(environment), self._limits
        database, lease = (
            LogDatabase(self._database, name),
            LogLease(self._database, name, limits.lease_seconds),
        )
        return StoredChangeLog(database, lease, self._catalog, self._sessions, rows=limits.swept_rows)
