"""The backend on a PostgreSQL server; needs ``flagsync[postgres]``.

backend   PostgresBackend: the calls, each of which is one transaction or a few
change    one transaction that writes
claims    what a sender gets
schema    the tables, and the queries on them
"""

from flagsync._outbox.backend import Backend, StoreTotals
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.postgres.backend import PostgresBackend
from flagsync._outbox.postgres.schema import OUTBOX
from flagsync._postgres.connections import check_conninfo

__all__ = ["PostgresBackend", "check", "open_backend", "totals"]


def check(url: str) -> None:
    """Check a URL without connecting.

    Raises:
        ValueError: It is malformed.
    """
    check_conninfo(url, OUTBOX.name)


def open_backend(url: str, bounds: StoreBounds) -> Backend:
    """Return the backend on a server, in the schema ``flagsync``."""
    return PostgresBackend(url, bounds=bounds)


def totals(url: str) -> StoreTotals:
    """Return what became of all messages ever stored in the schema ``flagsync`` of a database.

    Raises:
        OSError: The server cannot be used.
        ValueError: The URL is malformed.
    """
    backend = PostgresBackend(url)
    try:
        return backend.totals()
    finally:
        backend.close()
