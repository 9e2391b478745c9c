"""The lease of the change log of cohorts in PostgreSQL: a row, with the time at which it ends.

Guarantee: one process of all hosts holds it, by the server's clock. Boundary: a server whose clock jumps may end it
early.
"""

from flagsync.cohorts.postgres import schema as sql
from flagsync.cohorts.postgres.database import CohortDatabase


class LogLease:
    """A ``Lease``.

    Args:
        database: Where the row is.
        name: The name of the environment.
        seconds: After which time it ends.
    """

    def __init__(self, database: CohortDatabase, name: str, seconds: float) -> None:
        self._database, self._name, self.seconds = database, name, seconds
        self._may_be_held = False

    def try_acquire(self) -> bool:
        """Acquire or renew the lease if no other process holds it; return whether this process holds it."""
        self._may_be_held = True  # also if the answer does not come
        with self._database.work() as transaction:
            changed = transaction.run(sql.ACQUIRE, self._name, self._database.process, self.seconds)
        self._may_be_held = changed == 1
        return self._may_be_held

    def release(self) -> None:
        """Release the lease."""
        if self._may_be_held:
            with self._database.work() as transaction:
                transaction.run(sql.RELEASE, self._name, self._database.process)
            self._may_be_held = False
