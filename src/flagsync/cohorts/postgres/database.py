"""The database of a store of cohorts.

Guarantee: what the server cannot do now raises ``StoreUnavailableError``, in time and without a password. Boundary: it
does not know what is read and written.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from uuid import uuid4

from flagsync._clock import monotonic
from flagsync._postgres.database import Database, Transaction
from flagsync._postgres.places import Pool
from flagsync._process import PerProcess
from flagsync.cohorts.postgres.schema import COHORTS
from flagsync.exceptions import StoreUnavailableError


class CohortDatabase:
    """The tables of cohorts in a schema, which are made when they are needed.

    Args:
        place: A connection string or URL, or a pool of the application.
        schema: Where the tables are.
        busy_seconds: How long reading takes at most.
        work_seconds: How long everything else takes at most.

    Raises:
        ValueError: The connection string or the schema cannot be used.
    """

    def __init__(self, place: str | Pool, schema: str, busy_seconds: float, work_seconds: float) -> None:
        self._database = Database(place, COHORTS, schema, max(busy_seconds, work_seconds))
        self._busy_seconds, self._work_seconds = busy_seconds, work_seconds
        # A forked child is another process, and leaves the lease to its parent.
        self._process = PerProcess[str](lambda _: uuid4().hex)

    @property
    def process(self) -> str:
        """The name of this process, as the holder of a lease."""
        return self._process.get()

    def read(self) -> AbstractContextManager[Transaction]:
        """Begin a transaction that reads a little, while an evaluation may wait."""
        return self._transaction(self._busy_seconds)

    def work(self) -> AbstractContextManager[Transaction]:
        """Begin any other transaction; it is committed at the end."""
        return self._transaction(self._work_seconds)

    def close(self) -> None:
        """Close the connections of this process, until they are needed again."""
        self._database.close()

    @contextmanager
    def _transaction(self, seconds: float) -> Iterator[Transaction]:
        try:
            with self._database.transaction(monotonic() + seconds) as transaction:
                yield transaction
        except OSError as error:
            raise StoreUnavailableError(f"The database of cohorts cannot be used ({error})") from error
