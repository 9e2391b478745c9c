"""Tables that are made on first use, and errors in plain words."""

import asyncio
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from itertools import count
from time import monotonic
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import flagsync._postgres
from flagsync._postgres.database import Database
from flagsync._postgres.tables import Tables
from tests.support.postgres import PostgresServer
from tests.support.sockets import free_port

DIARY = Tables(
    name="diary",
    version=2,
    sql="CREATE TABLE IF NOT EXISTS {schema}.diary_entries (text text);\n",
    advice="copy its entries by hand",
)
MEETING = replace(DIARY, name="meeting", sql="CREATE TABLE IF NOT EXISTS {schema}.meetings (text text);\n")
HALTED = "import of psycopg halted; None in sys.modules"
numbers = count()


@pytest.fixture
def schema() -> str:
    return f"Diary_{next(numbers)}"


@pytest.fixture
def database(postgres: PostgresServer, schema: str) -> Iterator[Database]:
    with closing(Database(postgres.url(), DIARY, schema, 10.0)) as database:
        yield database


@pytest.fixture
def writer(postgres: PostgresServer) -> str:
    """The URL of a role without any rights of its own."""
    postgres.run(
        "DROP ROLE IF EXISTS writer",
        "CREATE ROLE writer LOGIN PASSWORD 's3cret/p@ss'",
        "REVOKE ALL ON SCHEMA public FROM writer",
    )
    return postgres.url("writer")


def write(database: Database, text: str = "rain") -> None:
    with database.transaction() as transaction:
        assert transaction.run("INSERT INTO diary_entries VALUES (%s)", text) == 1


def entries(database: Database) -> list[str]:
    with database.transaction() as transaction:
        return [text for [text] in transaction.rows("SELECT text FROM diary_entries")]


def test_tables_are_made_on_first_use(database: Database, schema: str) -> None:
    write(database)
    assert entries(database) == ["rain"]


def test_tables_are_made_again_after_they_were_dropped(
    postgres: PostgresServer, database: Database, schema: str
) -> None:
    write(database)
    postgres.run(f'DROP SCHEMA "{schema}" CASCADE')
    with pytest.raises(OSError, match="does not exist"):
        write(database)
    write(database)
    assert entries(database) == ["rain"]


def test_tables_are_made_once_by_many_at_the_same_moment(postgres: PostgresServer, schema: str) -> None:
    databases = [Database(postgres.url(), DIARY, schema, 10.0) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert [*pool.map(write, databases)] == [None] * 8
    assert entries(databases[0]) == ["rain"] * 8
    for database in databases:
        database.close()


def test_tables_of_two_kinds_share_a_schema(postgres: PostgresServer, database: Database, schema: str) -> None:
    write(database)
    with closing(Database(postgres.url(), MEETING, schema, 10.0)) as other, other.transaction() as transaction:
        transaction.run("INSERT INTO meetings VALUES (%s)", "ann")
    assert postgres.run(f'SELECT name FROM "{schema}".formats ORDER BY name') == [("diary",), ("meeting",)]


@pytest.mark.parametrize(
    ("version", "advice"), [(1, "copy its entries by hand"), (3, "install a newer version of flagsync")]
)
def test_tables_of_another_version_are_an_error(
    postgres: PostgresServer, database: Database, schema: str, version: int, advice: str
) -> None:
    postgres.run(DIARY.script(schema), f'UPDATE "{schema}".formats SET version = {version}')
    with pytest.raises(OSError, match=f"format {version}, but .* uses 2: {advice}"):
        write(database)


def test_tables_made_by_an_administrator_need_no_right_to_create(
    postgres: PostgresServer, writer: str, schema: str
) -> None:
    with closing(Database(writer, DIARY, schema, 10.0)) as database:
        with pytest.raises(OSError, match=r"permission denied for database postgres; grant the role"):
            write(database)
        postgres.run(
            DIARY.script(schema),
            DIARY.script(schema),
            f'GRANT USAGE ON SCHEMA "{schema}" TO writer',
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA "{schema}" TO writer',
        )
        write(database)
        assert entries(database) == ["rain"]
    postgres.run(f'DROP SCHEMA "{schema}" CASCADE')


def test_tables_are_made_in_a_schema_that_an_administrator_has_made(
    postgres: PostgresServer, writer: str, schema: str
) -> None:
    postgres.run(f'CREATE SCHEMA "{schema}" AUTHORIZATION writer')
    with closing(Database(writer, DIARY, schema, 10.0)) as database:
        write(database)
    postgres.run(f'DROP SCHEMA "{schema}" CASCADE')


@pytest.mark.parametrize("schema", ["", "1st", "fl-ag", 'fl"ag', "fl%ag", "{0}", "a" * 64, None, b"flagsync"])
def test_schema_has_letters_digits_and_underscores(schema: Any) -> None:
    with pytest.raises(ValueError, match=r"schema: .* cannot be used"):
        Database("postgresql://host/db", DIARY, schema, 1.0)


@pytest.mark.parametrize("place", [7, None, object(), ConnectionPool])
def test_place_is_a_text_or_a_pool(place: Any) -> None:
    with pytest.raises(ValueError, match=r"diary: .* is neither a connection string nor a pool"):
        Database(place, DIARY, "flagsync", 1.0)


def test_place_is_no_connection(postgres: PostgresServer) -> None:
    with (
        closing(psycopg.connect(postgres.url())) as connection,
        pytest.raises(ValueError, match="a value of type Connection is neither a connection string nor"),
    ):
        Database(connection, DIARY, "flagsync", 1.0)  # type: ignore[arg-type]


def test_place_is_no_pool_for_asyncio() -> None:
    async def build() -> None:
        Database(AsyncConnectionPool("", open=False), DIARY, "flagsync", 1.0)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"a method connection\(\), since flagsync calls it from threads"):
        asyncio.run(build())


def test_repr_has_no_password(database: Database) -> None:
    assert "s3cret" not in f"{database!r} {database._connections!r}"


# Errors


def refused(postgres: PostgresServer) -> str:
    return f"postgresql://user:s3cret@127.0.0.1:{free_port()}/db"


def wrong_password(postgres: PostgresServer) -> str:
    return postgres.url().replace("s3cret", "s3cretx")


def no_such_database(postgres: PostgresServer) -> str:
    return postgres.url(database="nowhere")


def password_taken_for_a_host(postgres: PostgresServer) -> str:
    return "postgresql://user:it@s3cret.invalid@localhost/db"


def wrong_option(postgres: PostgresServer) -> str:
    return "postgresql://host/db?sslmode=s3cret"


def no_such_socket(postgres: PostgresServer) -> str:
    return "host=/s3cret user=s3cret"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (refused, "PostgreSQL: Connection refused"),
        (wrong_password, 'PostgreSQL: password authentication failed for user "postgres"'),
        (no_such_database, 'PostgreSQL: database "nowhere" does not exist'),
        (password_taken_for_a_host, "PostgreSQL: "),
        (wrong_option, "PostgreSQL: invalid sslmode value$"),
        (no_such_socket, "PostgreSQL: No such file or directory"),
    ],
)
def test_error_says_why_there_is_no_connection_without_the_password(
    postgres: PostgresServer, url: Callable[[PostgresServer], str], words: str
) -> None:
    with (
        pytest.raises(OSError, match=words) as error,
        Database(url(postgres), DIARY, "flagsync", 1.0).transaction(),
    ):
        pass
    assert "s3cret" not in str(error.value)
    assert error.value.__suppress_context__


def test_error_of_a_server_that_is_read_only_says_so(own_postgres: PostgresServer) -> None:
    with closing(Database(own_postgres.url(), DIARY, "diary", 10.0)) as database:
        write(database)
        own_postgres.run("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
        own_postgres.end_sessions()
        with pytest.raises(OSError, match=r"read-only transaction; the server is read-only, as a replica is"):
            write(database)
        assert entries(database) == ["rain"]
        own_postgres.run("ALTER SYSTEM RESET default_transaction_read_only", "SELECT pg_reload_conf()")
        own_postgres.end_sessions()
        write(database)


def test_error_says_that_a_lock_was_kept_too_long(
    postgres: PostgresServer, database: Database, schema: str
) -> None:
    write(database)
    with closing(Database(postgres.url(), DIARY, schema, 10.0)) as other, other.transaction() as transaction:
        transaction.run_script("LOCK TABLE diary_entries")
        began = monotonic()
        with (
            pytest.raises(OSError, match="lock timeout; another process kept its lock for too long"),
            database.transaction(began + 0.3) as late,
        ):
            late.run("INSERT INTO diary_entries VALUES (%s)", "snow")
        assert monotonic() - began < 2


def test_error_of_a_server_that_stops_is_a_timeout(own_postgres: PostgresServer) -> None:
    with closing(Database(own_postgres.url(), DIARY, "diary", 0.5)) as database:
        write(database)
        with own_postgres.paused(), pytest.raises(TimeoutError, match="does not answer in time"):
            write(database)


def test_pool_that_has_no_connection_left_says_so(postgres: PostgresServer) -> None:
    with (
        ConnectionPool(postgres.url(), min_size=1, max_size=1) as pool,
        pool.connection(),
        pytest.raises(OSError, match=r"PostgreSQL: couldn't get a connection after"),
        Database(pool, DIARY, "diary", 0.3).transaction(),
    ):
        pass


def test_missing_driver_is_an_error_with_the_line_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ImportError, match=re.escape(f"({HALTED}): pip install 'flagsync[postgres]'")) as error:
        runpy.run_path(str(flagsync._postgres.__file__))
    assert isinstance(error.value, ValueError)
