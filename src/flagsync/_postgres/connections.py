"""Connections to a PostgreSQL server: own ones, or those of the application's pool.

Guarantee: a call returns after a given time, even if the server has stopped and the connection has not. A connection
is never used by a forked child of the process that opened it. Nothing is left in a session: behind pgbouncer in
transaction mode, the next transaction may have another one. Boundary: the system resolves host names, and of a
URL with several hosts, those behind one that does not answer are not tried.
"""

import inspect
import selectors
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from math import inf
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready

from flagsync._clock import monotonic
from flagsync._postgres.errors import ConnectionTimeoutError
from flagsync._postgres.places import Connection, Pool
from flagsync._process import PerProcess

T = TypeVar("T")

TOO_LATE = "the server does not answer in time"
LEAST_SECONDS = 0.25  # so that a server that works answers also at a deadline
MAX_IDLE = 4
# What the server ends, after which part of the time: it says why, before this process gives up.
TIMEOUTS = {"lock_timeout": 0.8, "statement_timeout": 0.9, "idle_in_transaction_session_timeout": 1.0}
ATTEMPTS = 5  # connections that turn out to be dead before a transaction has begun


class Connections:
    """Begins transactions on connections to a server.

    Args:
        place: A connection string or URL, or a pool. A pool is the application's, and is never closed.
        call_seconds: How long a transaction may take, waiting for a connection included.
        settings: Settings of each transaction, such as ``"search_path = it"``.
    """

    def __init__(self, place: str | Pool, call_seconds: float, settings: Sequence[str] = ()) -> None:
        self._place, self._call_seconds, self._settings = place, call_seconds, settings
        # A connection that a forked child deleted would warn; its parent goes on using the session.
        self._idle = PerProcess[_Idle](_Idle)

    @contextmanager
    def transaction(self, deadline: float = inf) -> Iterator[Connection]:
        """Begin a transaction, which is committed at the end of the context; an error rolls it back.

        Args:
            deadline: When to give up: ``time.monotonic()``. Later than ``call_seconds`` means after those.

        Raises:
            psycopg.Error: The driver's error. The transaction may have been committed if that was the last step.
        """
        now = monotonic()
        until = now + min(self._call_seconds, max(LEAST_SECONDS, deadline - now))
        attempts, has_ended = 0, False
        while not has_ended:
            attempts, has_begun = attempts + 1, False
            with self._borrowed(until) as connection, _limited(connection, until):
                try:
                    _begin(connection, until, self._settings)
                    has_begun = True
                    yield connection
                    connection.commit()
                    has_ended = True
                except BaseException as error:
                    _end(connection)
                    # It was dead before: the server has restarted, or somebody has ended the session.
                    is_stale = connection.closed and not isinstance(error, ConnectionTimeoutError)
                    if has_begun or not is_stale or attempts == ATTEMPTS:
                        raise

    def close(self) -> None:
        """Close the connections that this process has opened, until they are needed again."""
        if (idle := self._idle.existing()) is not None:
            idle.close()

    @contextmanager
    def _borrowed(self, until: float) -> Iterator[Connection]:
        if not isinstance(self._place, str):
            with _lend(self._place, until) as connection:
                yield connection
            return
        idle = self._idle.get()
        connection = idle.take() or _connect(self._place, until)
        try:
            yield connection
        finally:
            idle.give_back(connection)


class _Idle:
    """The connections of one process that are not in use. Threads share them.

    Args:
        inherited: Those of the parent, which are kept and never used.
    """

    def __init__(self, inherited: "_Idle | None" = None) -> None:
        self._connections, self._inherited = deque[Connection](), inherited

    def take(self) -> Connection | None:
        with suppress(IndexError):
            return self._connections.pop()
        return None

    def give_back(self, connection: Connection) -> None:
        if connection.closed:
            self.close()  # the others are older
        elif len(self._connections) < MAX_IDLE:
            self._connections.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while (connection := self.take()) is not None:
            connection.close()


def _connect(conninfo: str, until: float) -> Connection:
    """Open a connection that prepares no statements, which would stay in a session of pgbouncer.

    The driver's own ``connect`` waits for two seconds at least.
    """
    opening = generators.connect(make_conninfo(conninfo, fallback_application_name="flagsync"))
    try:
        descriptor, awaited = next(opening)
        while True:
            descriptor, awaited = opening.send(_select(descriptor, awaited, until))
    except StopIteration as end:
        connection: Connection = psycopg.Connection(end.value)
    connection.autocommit, connection.prepare_threshold = True, None
    return connection


def _select(descriptor: int, awaited: Any, until: float) -> Ready:  # noqa: ANN401 - of a type that versions name apart
    """Wait until a connection can be read or written."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, awaited)
        if ready := selector.select(max(0.0, until - monotonic())):
            return Ready(ready[0][1])
    raise ConnectionTimeoutError(TOO_LATE)


def _lend(pool: Pool, until: float) -> AbstractContextManager[Connection]:
    """Return a connection of a pool, which waits no longer for a free one than it may."""
    if "timeout" in inspect.signature(pool.connection).parameters:
        return pool.connection(timeout=max(LEAST_SECONDS, until - monotonic()))  # type: ignore[call-arg]
    return pool.connection()


def _begin(connection: Connection, until: float, settings: Sequence[str]) -> None:
    """Begin a transaction, in one message, that the server ends if this process does not go on."""
    milliseconds = 1000 * (until - monotonic())
    # The connection of a pool begins its transactions itself, if the application wants that.
    begin = ["BEGIN"] if connection.autocommit else []
    timeouts = [f"{name} = {max(1, int(part * milliseconds))}" for name, part in TIMEOUTS.items()]
    local = [f"SET LOCAL {setting}" for setting in (*timeouts, *settings)]
    # Each statement must see what was committed while it waited for a lock.
    level = "SET TRANSACTION ISOLATION LEVEL READ COMMITTED"
    psycopg.Cursor(connection).execute("; ".join([*begin, level, *local]).encode(), prepare=False)


def _end(connection: Connection) -> None:
    """Roll back; close the connection if that is impossible."""
    with suppress(psycopg.Error):
        if connection.info.transaction_status in (TransactionStatus.INTRANS, TransactionStatus.INERROR):
            connection.rollback()
    if connection.info.transaction_status != TransactionStatus.IDLE:
        connection.close()


@contextmanager
def _limited(connection: Connection, until: float) -> Iterator[None]:
    """Have each operation of a connection raise an error after a moment.

    The driver waits for ever for a server that has stopped while its system keeps the connection.
    """

    def wait(operation: Generator[Any, Any, T], *_: object, **__: object) -> T:
        return _wait(connection, operation, until)

    connection.wait = wait  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        del connection.wait


def _wait(connection: Connection, operation: Generator[Any, Any, T], until: float) -> T:
    """Drive an operation of the driver, as its own ``wait`` does, until it ends or a moment has come."""
    try:
        awaited = next(operation)
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), awaited)
            while True:
                ready = selector.select(max(0.0, until - monotonic()))
                if not ready:
                    raise ConnectionTimeoutError(TOO_LATE)
                wanted = operation.send(Ready(ready[0][1]))
                if wanted != awaited:
                    selector.modify(connection.fileno(), awaited := wanted)
    except StopIteration as end:
        result: T = end.value
        return result
    except ConnectionTimeoutError:
        operation.close()
        connection.close()
        raise
