"""What a PostgreSQL backend does when its server, its sessions or its rights fail, and behind a pooler."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any, ClassVar

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from flagsync._outbox.backend import Backend, Totals
from flagsync._outbox.contract import Limits
from flagsync._outbox.options import StoreBounds
from flagsync._outbox.postgres import PostgresBackend
from flagsync._outbox.postgres.change import Change
from flagsync.testing.backends import OutboxBackendContract
from tests.support.outboxes import HERE, LONG, message, repeat, texts
from tests.support.pooler import Pooler
from tests.support.postgres import PostgresServer, schema_of

numbers = count()
SHORT = StoreBounds(call_seconds=0.5)


@pytest.fixture
def schema() -> str:
    return f"troubled_{next(numbers)}"


@pytest.fixture
def backend(postgres: PostgresServer, schema: str) -> Iterator[PostgresBackend]:
    with closing(PostgresBackend(postgres.url(), schema)) as backend:
        yield backend


def store(backend: Backend, *states: str, second: float = 1.0) -> None:
    backend.store([message(text, second) for text in states], [], [], monotonic() + LONG)


def deliver(backend: Backend) -> list[str]:
    assert backend.try_acquire_lease()
    batch = backend.claim([], Limits())
    backend.settle(batch, [], [], monotonic() + LONG)
    return texts(batch)


CALLS: dict[str, Callable[[PostgresBackend], object]] = {
    "store": lambda backend: backend.store([message("ann=2", 2)], [], [repeat("bob")], monotonic() + LONG),
    "claim": lambda backend: backend.claim([], Limits()),
    "settle": lambda backend: backend.settle(
        [message("ann=1")._replace(version=1)], [], [], monotonic() + LONG
    ),
    "status": lambda backend: backend.status([HERE]),
    "totals": lambda backend: backend.totals(),
    "try_acquire_lease": lambda backend: backend.try_acquire_lease(),
    "note_absences": lambda backend: backend.note_absences(HERE, {"colour": 0.0}),
    "close": lambda backend: backend.close(),
}


# The server


def test_server_that_is_killed_and_started_again_loses_nothing(own_postgres: PostgresServer) -> None:
    with closing(PostgresBackend(own_postgres.url(), bounds=SHORT)) as backend:
        store(backend, "ann=1", "bob=1")
        assert backend.try_acquire_lease()
        ann, _ = backend.claim([], Limits())
        backend.settle([ann], [], [], monotonic() + LONG)
        number = backend.status([]).store
        own_postgres.kill()
        with pytest.raises(OSError, match="PostgreSQL: "):
            store(backend, "cid=1")
        own_postgres.start()
        store(backend, "cid=1")
        assert backend.status([]).store == number
        assert deliver(backend) == ["bob=1", "cid=1"]
        assert backend.totals().every == Totals(accepted=3, delivered=3)


@pytest.mark.parametrize("name", CALLS)
def test_call_of_a_server_that_stops_returns_in_time(own_postgres: PostgresServer, name: str) -> None:
    with closing(PostgresBackend(own_postgres.url(), bounds=SHORT)) as backend:
        store(backend, "ann=1")
        assert backend.try_acquire_lease()
        with own_postgres.paused():
            began = monotonic()
            with pytest.raises(TimeoutError, match="does not answer in time"):
                CALLS[name](backend)
            assert 0.4 < monotonic() - began < 1.5
        store(backend, "bob=1")
        assert deliver(backend) == ["ann=1", "bob=1"]


def test_server_that_is_read_only_is_an_error_until_it_is_not(own_postgres: PostgresServer) -> None:
    with closing(PostgresBackend(own_postgres.url())) as backend:
        store(backend, "ann=1")
        own_postgres.stop()
        own_postgres.start(default_transaction_read_only="on")
        with pytest.raises(OSError, match="the server is read-only, as a replica is: name the primary"):
            store(backend, "bob=1")
        with pytest.raises(OSError, match="read-only"):
            backend.try_acquire_lease()
        assert backend.status([]).pending == 1
        own_postgres.stop()
        own_postgres.start()
        store(backend, "bob=1")
        assert deliver(backend) == ["ann=1", "bob=1"]


# Sessions


@pytest.mark.parametrize("name", CALLS)
def test_session_that_is_ended_between_calls_is_no_error(
    postgres: PostgresServer, backend: PostgresBackend, name: str
) -> None:
    store(backend, "ann=1")
    assert backend.try_acquire_lease()
    assert backend.claim([], Limits())
    postgres.end_sessions()
    CALLS[name](backend)


def test_session_that_is_ended_within_a_call_leaves_nothing_of_it(
    postgres: PostgresServer, backend: PostgresBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(backend, "ann=1")
    finish = Change.finish

    def end_session_first(change: Change) -> None:
        postgres.end_sessions()
        finish(change)

    with monkeypatch.context() as patch:
        patch.setattr(Change, "finish", end_session_first)
        with pytest.raises(OSError, match="PostgreSQL: terminating connection"):
            store(backend, "ann=2", "bob=1", second=2)
    assert backend.totals().every == Totals(accepted=1)
    store(backend, "ann=2", "bob=1", second=2)
    assert deliver(backend) == ["ann=2", "bob=1"]
    assert backend.totals().every == Totals(accepted=3, delivered=2, superseded=1)


def test_call_that_fails_in_the_middle_may_be_repeated(
    postgres: PostgresServer, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = [f"user{number}=1" for number in range(5)]
    with closing(PostgresBackend(postgres.url(), schema, bounds=StoreBounds(call_messages=2))) as backend:
        parts = iter([False, True])

        finish = Change.finish

        def finish_or_fail(change: Change) -> None:
            finish(change)
            if next(parts, False):
                raise OSError("it fails")

        with monkeypatch.context() as patch:
            patch.setattr(Change, "finish", finish_or_fail)
            with pytest.raises(OSError, match="it fails"):
                store(backend, *states)
        assert backend.status([]).pending == 2
        store(backend, *states)
        assert deliver(backend) == states
        assert backend.totals().every == Totals(accepted=7, delivered=5, unchanged=2)


def test_host_that_stops_in_a_transaction_keeps_others_waiting_for_seconds(
    postgres: PostgresServer, backend: PostgresBackend, schema: str
) -> None:
    store(backend, "ann=1")
    with closing(PostgresBackend(postgres.url(), schema, bounds=SHORT)) as stopped, ExitStack() as stack:
        stack.enter_context(pytest.raises(OSError, match="PostgreSQL: "))
        with stopped._change(monotonic() + LONG):
            began = monotonic()
            store(backend, "bob=1")
            assert 0.3 < monotonic() - began < 1.5
    assert deliver(backend) == ["ann=1", "bob=1"]


def test_store_waits_for_another_process_until_the_deadline(
    postgres: PostgresServer, backend: PostgresBackend, schema: str
) -> None:
    store(backend, "ann=1")
    with closing(PostgresBackend(postgres.url(), schema)) as other, other._change(monotonic() + LONG):
        began = monotonic()
        with pytest.raises(OSError, match="another process kept its lock for too long"):
            backend.store([message("bob=1")], [], [], monotonic() + 0.3)
        assert 0.2 < monotonic() - began < 0.5
        assert backend.status([]).pending == 1
        assert backend.try_acquire_lease()
        assert len(backend.claim([], Limits())) == 1


def test_writers_of_the_same_keys_never_wait_for_each_other(postgres: PostgresServer, schema: str) -> None:
    names = [f"user{number}" for number in range(60)]
    second = count(1)
    lock = threading.Lock()

    def write(place: int) -> None:
        for turn in range(10):
            order = names[place * 7 + turn :] + names[: place * 7 + turn]
            with lock:
                now = next(second)
            store(backends[place], *(f"{name}={now}" for name in order[:: (-1) ** turn]), second=now)

    with ExitStack() as stack:
        backends = [stack.enter_context(closing(PostgresBackend(postgres.url(), schema))) for _ in range(4)]
        pool = stack.enter_context(ThreadPoolExecutor(4))
        writers = [pool.submit(write, place) for place in range(4)]
        is_written = False
        while not is_written:
            is_written = all(writer.done() for writer in writers)
            while deliver(backends[0]):
                pass
        assert [writer.result() for writer in writers] == [None] * 4
        totals = backends[0].totals().every
    assert totals.accepted == 4 * 10 * 60
    assert totals.delivered > 0
    assert totals.pending == totals.dropped == 0
    [[last]] = postgres.run(f"SELECT count(DISTINCT evaluated_at) FROM {schema}.outbox_latest")
    assert last == 1  # the latest evaluation of each, whoever made it


# Rights


def test_role_needs_no_right_to_create_in_tables_of_an_administrator(
    postgres: PostgresServer, schema: str
) -> None:
    postgres.run(
        f"CREATE ROLE {schema} LOGIN PASSWORD 's3cret/p@ss'",
        PostgresBackend.script(schema),
        f"GRANT USAGE ON SCHEMA {schema} TO {schema}",
    )
    with closing(PostgresBackend(postgres.url(schema), schema)) as backend:
        with pytest.raises(OSError, match="permission denied for table") as error:
            store(backend, "ann=1")
        assert "s3cret" not in str(error.value)
        postgres.run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {schema} TO {schema}")
        store(backend, "ann=1")
        assert deliver(backend) == ["ann=1"]


# Pools and poolers


class TestPostgresBackendBehindAPooler(OutboxBackendContract):
    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> Iterator[None]:
        with closing(Pooler(postgres.url())) as self.pooler:
            yield

    def make_backend(self, path: Path) -> PostgresBackend:
        return PostgresBackend(self.pooler, schema_of(path))


class TestPostgresBackendWithAPool(OutboxBackendContract):
    options: ClassVar[dict[str, Any]] = {"autocommit": True, "cursor_factory": psycopg.ClientCursor}

    @pytest.fixture(autouse=True)
    def server(self, postgres: PostgresServer) -> Iterator[None]:
        with ConnectionPool(postgres.url(), min_size=1, max_size=2, kwargs=self.options) as self.pool:
            yield

    def make_backend(self, path: Path) -> PostgresBackend:
        return PostgresBackend(self.pool, schema_of(path))


def test_pool_of_the_application_is_not_closed(postgres: PostgresServer, schema: str) -> None:
    with ConnectionPool(postgres.url(), min_size=1, max_size=1) as pool:
        for _ in range(2):
            backend = PostgresBackend(pool, schema)
            store(backend, "ann=1")
            backend.close()
        with pool.connection() as connection:
            assert connection.execute(f"SELECT count(*) FROM {schema}.outbox_waiting").fetchall() == [(1,)]
