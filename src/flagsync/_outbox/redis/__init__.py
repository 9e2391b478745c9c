"""The backend on a Redis or Valkey server, which hosts share. Importing this package needs redis-py.

backend   RedisBackend: what each method asks the server
records   messages as the scripts take and return them
scripts   the scripts in lua/, run by their digest
keys      the keys of a namespace
server    the connection of a URL, or the client of the application
failures  what went wrong, in plain words
advice    settings of a server that lose messages
"""

from flagsync.exceptions import MissingPackageError

try:
    import redis  # noqa: F401 - here, so that every user gets the same error
except ImportError as error:
    raise MissingPackageError(
        f"an outbox on a Redis or Valkey server needs the package redis ({error}); "
        "install it with: pip install 'flagsync[redis]'",
        name="redis",
    ) from error


from flagsync._outbox.backend import Backend
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.redis.backend import RedisBackend
from flagsync._outbox.redis.url import parse

__all__ = ["RedisBackend", "check", "open_backend"]


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
