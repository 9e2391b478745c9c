"""Where a database is: a connection string, or a pool of the application. Both are checked without connecting."""

import inspect
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg.conninfo import conninfo_to_dict

from flagsync._rules import shown

Connection = psycopg.Connection[Any]

ACCEPTED = (
    "it takes a URL such as 'postgresql://user:password@host:5432/database', in which special characters of the "
    "user and the password are percent-encoded, as @ is by %40"
)
MAX_PORTS = 1 << 16


@runtime_checkable
class Pool(Protocol):
    """A pool of the application, as ``psycopg_pool.ConnectionPool`` is one."""

    def connection(self) -> AbstractContextManager[Connection]:
        """Lend a connection until the context ends."""


def check_conninfo(conninfo: str, option: str) -> None:
    """Check a URL or another connection string without connecting.

    Raises:
        ValueError: It is malformed. The message repeats nothing of it, since any part may belong to the password.
    """
    try:
        ports = str(conninfo_to_dict(conninfo).get("port") or "").split(",")
        # The driver notices a port when it connects, and a NUL never.
        is_valid = "\0" not in conninfo and all(0 < int(port) < MAX_PORTS for port in ports if port)
    except (psycopg.Error, ValueError):
        is_valid = False
    if not is_valid:
        raise ValueError(f"{option}: this is not a connection string of PostgreSQL; {ACCEPTED}")


def check_pool(pool: object, option: str) -> None:
    """Check that something is a pool, as far as its methods tell.

    Raises:
        ValueError: It is something else, such as a connection or a pool for asyncio.
    """
    lend = getattr(pool, "connection", None)
    is_async = inspect.isasyncgenfunction(inspect.unwrap(lend)) if callable(lend) else False
    if not callable(lend) or isinstance(pool, type) or is_async:
        why = ", since flagsync calls it from threads, not from an event loop" if is_async else ""
        raise ValueError(
            f"{option}: {shown(pool)} is neither a connection string nor a pool, which has a method connection(){why}"
        )
