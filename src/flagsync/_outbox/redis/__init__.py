"""The backend on a Redis or Valkey server, which hosts share. Importing this package needs redis-py.

backend   RedisBackend: what each method asks the server
records   messages as the scripts take and return them
scripts   the scripts in lua/, run by their digest
keys      the keys of a namespace
server    the connection of a URL, or the client of the application
failures  what went wrong, in plain words
advice    settings of a server that lose messages
"""


class RedisMissingError(ImportError, ValueError):
    """The extra is not installed. An option that names a server is then invalid."""


try:
    import redis  # noqa: F401 - here, so that every user gets the same error
except ImportError as error:
    raise RedisMissingError(
        f"an outbox on a Redis or Valkey server needs the package redis ({error}); "
        "install it with: pip install 'flagsync[redis]'",
        name="redis",
    ) from error

# ruff: noqa: E402 - which need the package

from flagsync._outbox.backend import Backend, StoreTotals
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.redis.backend import RedisBackend
from flagsync._outbox.redis.url import parse

__all__ = ["RedisBackend", "RedisMissingError", "check", "open_backend", "totals"]


def check(url: str) -> None:
    """Check a URL, without connecting.

    Raises:
        ValueError: It is malformed. The message does not repeat it, as it may contain a password.
    """
    parse(url)


def open_backend(url: str, bounds: StoreBounds) -> Backend:
    """Return the backend at a URL that was checked."""
    server, namespace = parse(url)
    return RedisBackend(server, namespace, bounds)


def totals(url: str) -> StoreTotals:
    """Return what became of all messages ever stored at a URL.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    backend = open_backend(url, StoreBounds())
    try:
        return backend.totals()
    finally:
        backend.close()
