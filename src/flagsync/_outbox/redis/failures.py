"""What went wrong, in plain words.

Guarantee: no text of an error contains a URL, a user, a password, or what was to be stored.
"""

from redis import exceptions as redis

CLOSED = "the server refuses the user or the password"
NO_CONNECTION = "all connections of the client's pool are in use (max_connections)"
NODE = "the server is a node of a cluster; pass RedisBackend(redis.RedisCluster(…)) as the outbox"
ARGUMENTS = ", with args"  # what Redis writes before the arguments of a command
# The first class that fits, so the narrower ones come before the wider ones.
WORDS: tuple[tuple[type[Exception], str], ...] = (
    (redis.AuthenticationError, CLOSED),
    (redis.AuthenticationWrongNumberOfArgsError, CLOSED),
    (
        redis.NoPermissionError,
        "the user lacks a permission: scripts (EVALSHA, EVAL), the keys of the namespace, or SELECT for its database",
    ),
    (redis.BusyLoadingError, "the server is still loading its data"),
    (redis.OutOfMemoryError, "the server's memory is full (maxmemory)"),
    (redis.ReadOnlyError, "the server is a read-only replica"),
    (redis.MovedError, NODE),
    (redis.TimeoutError, "the server did not answer in time"),
)
# Errors without a class of their own: of redis-py before 6, of Redis 7 when a client without a password sends much, of
# the pools of redis-py, of a key of another kind, and of our own scripts.
TEXTS = {
    "MOVED ": NODE,
    "unauthenticated": CLOSED,
    "Too many connections": NO_CONNECTION,
    "No connection available": NO_CONNECTION,
    "WRONGTYPE": "a key of the namespace is somebody else's; choose another namespace",
    "FORMAT ": "the namespace has updates of another version of flagsync; deliver them with that version, or choose "
    "another namespace",
}


def plain(error: Exception) -> OSError:
    """Return an error that says what a library's error says, in plain words."""
    for kind, words in WORDS:
        if isinstance(error, kind):
            return OSError(words)
    for part, words in TEXTS.items():
        if part in f"{error}":
            return OSError(words)
    if isinstance(error, redis.ConnectionError):
        return OSError(f"the server cannot be reached ({_cause(error)})")
    # Of the server itself, such as "MISCONF …"; it does not repeat what is stored, but for the arguments of a command.
    text = (
        f"{error}".partition(ARGUMENTS)[0] if isinstance(error, redis.ResponseError) else type(error).__name__
    )
    return OSError(f"the server refused a command ({text})")


def _cause(error: BaseException) -> str:
    """Return what the system says about a connection, without naming its other end."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else None
    return (cause and cause.strerror) or "the connection was closed"
