"""Backends of an outbox, where a path or a URL is not enough: for a connection of the application, a name or bounds.

    from flagsync.outboxes import RedisBackend

    client = FlagSync(…, outbox=RedisBackend(redis.Redis(…), namespace="shop"))

Each client needs a backend of its own. Clients whose backends name the same store share its pending messages.
``StoreBounds`` says how large a store gets. ``RedisBackend`` needs the extra ``flagsync[redis]``, and
``PostgresBackend`` needs ``flagsync[postgres]``.
"""

from typing import TYPE_CHECKING

from flagsync._lazy import importer

if TYPE_CHECKING:
    from flagsync._outbox.options import StoreBounds
    from flagsync._outbox.postgres import PostgresBackend
    from flagsync._outbox.redis import RedisBackend
    from flagsync._outbox.sqlite import SQLiteBackend

__all__ = ["PostgresBackend", "RedisBackend", "SQLiteBackend", "StoreBounds"]

_IMPORTED_WHEN_USED = {
    "PostgresBackend": "flagsync._outbox.postgres",
    "RedisBackend": "flagsync._outbox.redis",
    "SQLiteBackend": "flagsync._outbox.sqlite",
    "StoreBounds": "flagsync._outbox.options",
}

if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
    __getattr__, __dir__ = importer(__name__, _IMPORTED_WHEN_USED)
