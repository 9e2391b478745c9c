"""Transactions on the tables of one kind, which are made on first use.

Guarantee: hosts that use the tables for the first time at the same moment make them once. A role that may not create
anything can use tables that are there. Boundary: tables of another version are an error.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from math import inf
from typing import Any

import psycopg
from psycopg import errors
from psycopg.rows import tuple_row

from flagsync._postgres.connections import Connections
from flagsync._postgres.errors import explained
from flagsync._postgres.places import Pool, check_conninfo, check_pool
from flagsync._postgres.tables import Tables, check_schema, quoted

Row = tuple[Any, ...]
LOCK = int.from_bytes(blake2b(b"flagsync", digest_size=8).digest(), signed=True)
MISSING = errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedColumn


class EmptyError(OSError):
    """A table lacks rows that it must have, as somebody has deleted them.

    Args:
        table: Its name.
    """

    def __init__(self, table: str) -> None:
        super().__init__(
            f"PostgreSQL: the table {table} has lost rows; if this goes on, drop all tables of the schema, and they "
            "are made again"
        )


class Transaction:
    """A transaction in which statements are executed, none of which stays prepared."""

    def __init__(self, connection: "psycopg.Connection[Any]") -> None:
        # Not connection.cursor(): the application may have chosen another kind of cursor, or of rows.
        self._cursor = psycopg.Cursor(connection, row_factory=tuple_row)

    def rows(self, query: str, *values: object) -> list[Row]:
        """Execute a query; return its rows."""
        self._cursor.execute(query.encode(), values, prepare=False, binary=True)
        return self._cursor.fetchall()

    def run(self, statement: str, *values: object) -> int:
        """Execute a statement; return how many rows it has changed."""
        self._cursor.execute(statement.encode(), values, prepare=False, binary=True)
        return self._cursor.rowcount

    def copy(self, statement: str, types: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Copy rows into a table: ``COPY … FROM STDIN (FORMAT BINARY)``."""
        with self._cursor.copy(statement.encode()) as copy:
            copy.set_types(types)
            for row in rows:
                copy.write_row(row)

    def run_script(self, script: str) -> None:
        """Execute statements without parameters."""
        self._cursor.execute(script.encode(), prepare=False)


class Database:
    """The tables of one kind in a schema, and the connections to it.

    In its transactions, queries name the tables without the schema.

    Args:
        place: A connection string or URL, or a pool of the application.
        tables: The tables.
        schema: Where they are.
        call_seconds: How long a transaction may take.

    Raises:
        ValueError: The connection string or the schema cannot be used.
    """

    def __init__(self, place: str | Pool, tables: Tables, schema: str, call_seconds: float) -> None:
        check_schema(schema)
        if isinstance(place, str):
            check_conninfo(place, tables.name)
        else:
            check_pool(place, tables.name)
        # Queries name tables without their schema.
        path = f"search_path = pg_catalog, {quoted(schema)}, pg_temp"
        self._connections = Connections(place, call_seconds, (path, *tables.settings))
        self._tables, self._schema = tables, schema
        self._has_tables = False

    def __repr__(self) -> str:
        return f"Database(schema={self._schema!r})"

    @contextmanager
    def transaction(self, deadline: float = inf) -> Iterator[Transaction]:
        """Begin a transaction, which is committed at the end of the context; an error rolls it back.

        Args:
            deadline: When to give up, if that is earlier than after ``call_seconds``: ``time.monotonic()``.

        Raises:
            OSError: The server cannot be used; the message says why, and contains no password. If the connection was
                lost while committing, the transaction may have been committed.
        """
        try:
            if not self._has_tables:
                self._find_or_make(deadline)
                self._has_tables = True
            with self._connections.transaction(deadline) as connection:
                yield Transaction(connection)
        except EmptyError:
            self._has_tables = False  # others may be gone: the next call makes them again
            raise
        except psycopg.Error as error:
            if isinstance(error, MISSING):
                self._has_tables = False  # the next call makes them again
            raise explained(error) from None

    def close(self) -> None:
        """Close the connections that this process has opened, until they are needed again."""
        self._connections.close()

    def _find_or_make(self, deadline: float) -> None:
        with self._connections.transaction(deadline) as connection:
            transaction = Transaction(connection)
            version = self._version(transaction)
            if version is None:
                transaction.rows("SELECT 1 FROM pg_advisory_xact_lock(%s)", LOCK)
                version = self._version(transaction)  # another process may have been faster
            if version is None:
                [[has_schema]] = transaction.rows(
                    "SELECT to_regnamespace(%s) IS NOT NULL", quoted(self._schema)
                )
                transaction.run_script(self._tables.script(self._schema, has_schema=has_schema))
            elif version != self._tables.version:
                name, expected = self._tables.name, self._tables.version
                advice = self._tables.advice if version < expected else "install a newer version of flagsync"
                raise OSError(
                    f"PostgreSQL: the {name} tables in schema {self._schema!r} have format {version}, but this "
                    f"version of flagsync uses {expected}: {advice}"
                )

    def _version(self, transaction: Transaction) -> int | None:
        """Return the version of the tables; None if there are none."""
        formats = f"{quoted(self._schema)}.formats"
        rows: Sequence[Row] = transaction.rows("SELECT to_regclass(%s) IS NOT NULL", formats)
        if rows[0][0]:
            rows = transaction.rows(f"SELECT version FROM {formats} WHERE name = %s", self._tables.name)
            return int(rows[0][0]) if rows else None
        return None
