"""The backend on a PostgreSQL server; needs ``flagsync[postgres]``.

backend   PostgresBackend: the calls, each of which is one transaction or a few
change    one transaction that writes
claims    what a sender gets
schema    the tables, and the queries on them
"""

from flagsync._outbox.backend import Backend
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.postgres.backend import PostgresBackend
from flagsync._outbox.postgres.schema import OUTBOX
from flagsync._postgres.places import check_conninfo

__all__ = ["PostgresBackend", "check", "open_backend"]


def check(url: str) -> None:
    """Check a URL without connecting.

    Raises:
        ValueError: It is malformed.
    """
    check_conninfo(url, OUTBOX.name)


def open_backend(url: str, bounds: StoreBounds) -> Backend:
    """Return the backend on a server, in the schema ``flagsync``."""
    return PostgresBackend(url, bounds=bounds)
