"""Connections: how long a call takes, what a dead session costs, and whose connections they are."""

import select
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row, tuple_row
from psycopg_pool import ConnectionPool

from flagsync._postgres.connections import Connections
from flagsync._postgres.errors import ConnectionTimeoutError
from flagsync._postgres.places import Connection, check_conninfo
from tests.support.forks import in_child
from tests.support.postgres import PASSWORD, PostgresServer

LONG = 10.0
SESSION = "SELECT pg_backend_pid()"


def session(connections: Connections) -> int:
    """Return the number of the session of a transaction."""
    with connections.transaction() as connection:
        [number] = psycopg.Cursor(connection, row_factory=tuple_row).execute(SESSION).fetchall()[0]
    return int(number)


@pytest.fixture
def connections(postgres: PostgresServer) -> Iterator[Connections]:
    with closing(Connections(postgres.url(), LONG)) as connections:
        yield connections


def test_connection_is_used_again(connections: Connections) -> None:
    assert session(connections) == session(connections)


def test_connections_of_two_threads_are_two(connections: Connections) -> None:
    with connections.transaction(), connections.transaction():
        first, second = connections._idle.get(), connections._idle.get()
        assert first is second
        assert not first._connections
    assert len(first._connections) == 2


def test_connections_that_are_not_in_use_are_few(connections: Connections) -> None:
    barrier = threading.Barrier(6)
    threads = [threading.Thread(target=use, args=(connections, barrier)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(connections._idle.get()._connections) == 4


def use(connections: Connections, barrier: threading.Barrier) -> None:
    with connections.transaction():
        barrier.wait(LONG)


def test_session_that_was_ended_is_replaced_without_an_error(
    postgres: PostgresServer, connections: Connections
) -> None:
    before = session(connections)
    postgres.run(f"SELECT pg_terminate_backend({before}, 5000)")
    assert session(connections) != before


def test_session_that_is_ended_within_a_transaction_is_an_error(
    postgres: PostgresServer, connections: Connections
) -> None:
    with pytest.raises(psycopg.OperationalError), connections.transaction() as connection:
        end_and_use(connection, postgres)
    session(connections)


def end_and_use(connection: Connection, postgres: PostgresServer) -> None:
    postgres.run(f"SELECT pg_terminate_backend({connection.info.backend_pid}, 5000)")
    connection.execute("SELECT 1")


def test_error_rolls_back_and_keeps_the_connection(connections: Connections) -> None:
    before = session(connections)
    with pytest.raises(psycopg.Error), connections.transaction() as connection:
        connection.execute("SELECT 1 / 0")
    assert session(connections) == before


def test_error_of_the_caller_rolls_back_too(postgres: PostgresServer, connections: Connections) -> None:
    with pytest.raises(KeyError), connections.transaction() as connection:
        make_and_fail(connection)
    assert postgres.run("SELECT to_regclass('never_made')") == [(None,)]


def make_and_fail(connection: Connection) -> None:
    connection.execute("CREATE TABLE never_made (number integer)")
    raise KeyError


@pytest.mark.parametrize("seconds", [0.3, 1.0])
def test_server_that_stops_ends_a_call_in_time(own_postgres: PostgresServer, seconds: float) -> None:
    with closing(Connections(own_postgres.url(), seconds)) as connections:
        session(connections)
        with own_postgres.paused():
            began = monotonic()
            with pytest.raises(ConnectionTimeoutError):
                session(connections)
            assert seconds - 0.05 <= monotonic() - began < seconds + 0.5
        session(connections)


def test_deadline_shortens_a_call(own_postgres: PostgresServer) -> None:
    with closing(Connections(own_postgres.url(), LONG)) as connections:
        session(connections)
        with own_postgres.paused():
            began = monotonic()
            with pytest.raises(ConnectionTimeoutError), connections.transaction(began - 1):
                pass
            assert monotonic() - began < 2


def test_connecting_to_a_server_that_stops_ends_in_time(own_postgres: PostgresServer) -> None:
    with own_postgres.paused():
        began = monotonic()
        with pytest.raises(psycopg.OperationalError):
            session(Connections(own_postgres.url(), 0.5))
        assert monotonic() - began < 3


def test_statement_may_be_larger_than_what_a_socket_takes(connections: Connections) -> None:
    with connections.transaction() as connection:
        cursor = connection.execute("SELECT length(%b)", [bytes(50_000_000)], prepare=False)
        assert cursor.fetchall() == [(50_000_000,)]


def test_statement_is_ended_by_the_server(connections: Connections) -> None:
    with (
        pytest.raises(psycopg.errors.QueryCanceled),
        connections.transaction(monotonic() + 0.3) as connection,
    ):
        sleep_without_a_limit(connection)


def sleep_without_a_limit(connection: Connection) -> None:
    connection.wait = lambda operation, *_, **__: psycopg.Connection.wait(connection, operation)  # type: ignore[method-assign]
    connection.execute("SELECT pg_sleep(30)")


def test_transaction_that_does_not_go_on_is_ended_by_the_server(connections: Connections) -> None:
    with pytest.raises(psycopg.OperationalError), connections.transaction(monotonic() + 0.3) as connection:
        read_until_it_ends(connection)


def read_until_it_ends(connection: Connection) -> None:
    while True:
        assert select.select([connection], [], [], LONG)[0]
        connection.pgconn.consume_input()


def test_nothing_is_left_in_a_session(connections: Connections) -> None:
    for _ in range(8):
        session(connections)
    with connections.transaction() as connection:
        assert connection.execute("SELECT count(*) FROM pg_prepared_statements").fetchall() == [(0,)]
    [idle] = connections._idle.get()._connections
    assert idle.execute("SHOW statement_timeout").fetchall() == [("0",)]
    assert idle.execute("SHOW lock_timeout").fetchall() == [("0",)]


def test_forked_child_has_connections_of_its_own(connections: Connections) -> None:
    before = session(connections)
    assert in_child(lambda: session(connections) != before)
    assert session(connections) == before


def test_close_closes_what_this_process_has_opened(postgres: PostgresServer) -> None:
    connections = Connections(postgres.url(), LONG)
    connections.close()
    session(connections)
    [idle] = connections._idle.get()._connections
    connections.close()
    assert idle.closed
    session(connections)
    connections.close()


# Pools


@pytest.mark.parametrize("autocommit", [False, True])
def test_pool_lends_its_connections(postgres: PostgresServer, autocommit: bool) -> None:
    options = {"autocommit": autocommit, "row_factory": dict_row}
    with ConnectionPool(postgres.url(), min_size=1, max_size=1, kwargs=options) as pool:
        connections = Connections(pool, LONG)
        assert session(connections) == session(connections)
        with pytest.raises(KeyError), connections.transaction() as connection:
            make_and_fail(connection)
        connections.close()
        with pool.connection() as connection:
            rows: list[Any] = connection.execute("SELECT to_regclass('never_made') AS it").fetchall()
            assert rows == [{"it": None}]
            assert "wait" not in vars(connection)


def test_pool_may_have_sessions_that_were_ended(postgres: PostgresServer) -> None:
    with ConnectionPool(postgres.url(), min_size=2, max_size=2) as pool:
        pool.wait()
        before = {session(Connections(pool, LONG)) for _ in range(4)}
        for number in before:
            postgres.run(f"SELECT pg_terminate_backend({number}, 5000)")
        assert session(Connections(pool, LONG)) not in before


def test_pool_without_a_free_connection_ends_a_call_in_time(postgres: PostgresServer) -> None:
    with ConnectionPool(postgres.url(), min_size=1, max_size=1) as pool, pool.connection():
        began = monotonic()
        with pytest.raises(psycopg.OperationalError):
            session(Connections(pool, 0.3))
        assert monotonic() - began < 5


def test_pool_of_a_server_that_stops_ends_a_call_in_time(own_postgres: PostgresServer) -> None:
    with ConnectionPool(own_postgres.url(), min_size=1, max_size=1) as pool:
        pool.wait()
        with own_postgres.paused():
            began = monotonic()
            with pytest.raises(ConnectionTimeoutError):
                session(Connections(pool, 0.5))
            assert monotonic() - began < 2
        session(Connections(pool, LONG))


class Lender:
    """The least that a pool is."""

    def __init__(self, url: str) -> None:
        self._url = url

    def connection(self) -> AbstractContextManager[Connection]:
        @contextmanager
        def lend() -> Iterator[Connection]:
            with psycopg.connect(self._url) as connection:
                yield connection

        return lend()


def test_pool_is_anything_that_lends_connections(postgres: PostgresServer) -> None:
    connections = Connections(Lender(postgres.url()), LONG)
    assert session(connections) != session(connections)


# What is accepted


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://host/db",
        "postgres://user:p%40ss@one,two:5433/db?target_session_attrs=read-write",
        "host=db dbname=it",
    ],
)
def test_conninfo_that_is_well_formed_is_accepted(conninfo: str) -> None:
    check_conninfo(conninfo, "outbox")


@pytest.mark.parametrize(
    "conninfo",
    [
        f"postgresql://user:{PASSWORD}@host:port/db?what",
        f"postgresql://u:{PASSWORD}%zz@host/db",
        "postgresql://user:s3cret@host:port/db",
        f"postgresql://user:{PASSWORD}@host/db",
        "host=db password",
        "postgresql://user:s3cret@host:0/db",
        "postgresql://user:s3cret@one:5432,two:65536/db",
        "postgresql://user:s3cret@host\0/db",
    ],
)
def test_conninfo_that_is_malformed_is_refused_without_its_password(conninfo: str) -> None:
    with pytest.raises(ValueError, match="percent-encoded") as refused:
        check_conninfo(conninfo, "outbox")
    assert "s3cret" not in str(refused.value)
    assert refused.value.__context__ is None
