"""Where the scripts run: a connection of our own, or the client of the application.

Guarantee: what a URL names answers, or raises ``OSError``, within the time that is left, and a forked child has a
connection of its own. Boundary: how long a client of the application waits, and how often it tries again, is set where
it is made; and looking up the name of a host may take longer.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from socket import socket
from typing import Any, Protocol

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE, Pipeline
from redis.cluster import ClusterPipeline
from redis.exceptions import NoScriptError, RedisClusterException, RedisError
from redis.retry import Retry

from flagsync._clock import monotonic
from flagsync._outbox.redis.failures import plain
from flagsync._process import PerProcess

Argument = bytes | str | int | float
Client = Redis | RedisCluster
FAILURES = (RedisError, RedisClusterException, OSError)
SHORTEST_SECONDS = 0.01  # 0 would be a socket that does not wait at all


class Server(Protocol):
    """Executes commands."""

    def execute(self, *command: Argument, seconds: float) -> object:
        """Execute a command, and return the reply with every text as bytes.

        Raises:
            NoScriptError: The server does not know a script.
            OSError: The server did not answer within ``seconds``, or refused.
        """

    def close(self) -> None:
        """Close the connection until it is needed again."""


class Connection(Protocol):
    """A connection of redis-py, as far as it is used here; its own annotations are incomplete."""

    socket_timeout: float | None
    socket_connect_timeout: float | None
    _sock: socket

    def connect(self) -> object: ...

    def can_read(self) -> bool: ...

    def send_command(self, *command: Argument) -> object: ...

    def read_response(self, *, disable_decoding: bool) -> object: ...

    def disconnect(self) -> object: ...


class UrlServer:
    """A server that each process has one connection to.

    Args:
        connection: A class of connections of redis-py.
        options: Its arguments.

    Raises:
        TypeError: It has no such arguments.
        ValueError: An argument is invalid.
    """

    def __init__(self, connection: Callable[..., Connection], options: Mapping[str, Any]) -> None:
        def connect(_: object = None) -> Connection:
            # A command that may have been executed is not repeated here, whatever the URL says.
            return connection(**options, retry=Retry(NoBackoff(), 0))

        connect()  # which only checks the arguments
        self._connection = PerProcess[Connection](connect)

    def execute(self, *command: Argument, seconds: float) -> object:
        connection, deadline = self._connection.get(), monotonic() + seconds
        with _plain_errors():
            _connect(connection, deadline)
            connection.send_command(*command)
            return connection.read_response(disable_decoding=True)

    def close(self) -> None:
        if (connection := self._connection.existing()) is not None:
            connection.disconnect()


class ClientServer:
    """A server as the application reaches it.

    Args:
        client: The application's. It is never closed here.
    """

    def __init__(self, client: Client) -> None:
        self._execute: Callable[..., object] = client.execute_command

    def execute(self, *command: Argument, seconds: float) -> object:  # noqa: ARG002 - the client has its own timeouts
        with _plain_errors():
            return self._execute(*command, **{NEVER_DECODE: True})

    def close(self) -> None:
        pass


def server_of(client: Client | UrlServer) -> Server:
    """Return the server that a client reaches.

    Raises:
        TypeError: It is no client that can be used here.
    """
    if isinstance(client, UrlServer):
        return client
    if isinstance(client, Client) and not isinstance(client, (Pipeline, ClusterPipeline)):
        return ClientServer(client)
    found = f"{type(client).__module__}.{type(client).__qualname__}"
    is_async = inspect.iscoroutinefunction(getattr(client, "execute_command", None))
    why = ", since flagsync calls it from threads, not from an event loop" if is_async else ""
    raise TypeError(f"client must be a redis.Redis or a redis.RedisCluster, not a {found}{why}")


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise what ``Server.execute`` says."""
    try:
        yield
    except NoScriptError:
        raise
    except FAILURES as error:
        raise plain(error) from None


def _connect(connection: Connection, deadline: float) -> None:
    """Connect, also if the server has closed the connection since its last use."""
    connect_seconds = max(SHORTEST_SECONDS, (deadline - monotonic()) / 2)  # and as long for its first answer
    connection.socket_timeout = connection.socket_connect_timeout = connect_seconds
    connection.connect()
    try:
        is_stale = connection.can_read()
    except FAILURES:
        is_stale = True
    if is_stale:
        connection.disconnect()
        connection.connect()
    # There is no public way to change the timeout of a connection before redis-py 7.
    connection._sock.settimeout(max(SHORTEST_SECONDS, deadline - monotonic()))  # noqa: SLF001
