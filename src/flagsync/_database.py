"""SQLite files of flagsync's own: how they are made and found.

Guarantee: nothing that is not flagsync's own is ever written to. Boundary: local file systems.
"""

import os
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

BUSY_SECONDS = 2.0
VERSION = 1


@dataclass(frozen=True, slots=True)
class Format:
    """What is in a file: its ``name`` for people, ``application`` as SQLite notes it, tables, and settings."""

    name: str
    application: int
    tables: str
    page_bytes: int
    settings: str


def connect(path: str, kind: Format, check: str = "") -> sqlite3.Connection:
    """A connection to the file, which is made if there is none; an error if there is something else."""
    with suppress(FileExistsError):  # SQLite gives its other files the same mode
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if not read(connection, "SELECT count(*) FROM sqlite_master"):
            _make(connection, kind)
        if read(connection, "PRAGMA application_id") != kind.application:
            raise ValueError("it belongs to another application, or cannot be written")
        if read(connection, "PRAGMA user_version") > VERSION:
            raise ValueError("it was made by a newer version of flagsync")
        _use_wal(connection)
        connection.executescript(kind.settings + check)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: str, kind: Format) -> sqlite3.Connection:
    """Make a file that can be written, or find one; ``ValueError`` if there can be none."""
    try:
        if os.name != "posix":
            raise ValueError("it takes the file locks of a POSIX system")
        return connect(path, kind, "; BEGIN IMMEDIATE; COMMIT")
    except (sqlite3.Error, OSError, ValueError) as error:
        reason = f"{kind.name} is a file of flagsync's own, or a place where to make it: {error}"
        raise ValueError(reason) from error


def identity(path: str) -> tuple[int, int] | None:
    """Which file is at the path, if there is one."""
    with suppress(FileNotFoundError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino
    return None


def read(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """The first column of the first row."""
    return int(connection.execute(query, values).fetchone()[0])


def _make(connection: sqlite3.Connection, kind: Format) -> None:
    numbers = f"PRAGMA application_id = {kind.application}; PRAGMA user_version = {VERSION}"
    try:
        connection.execute(f"PRAGMA page_size = {kind.page_bytes}")
        connection.executescript(f"BEGIN IMMEDIATE; {kind.tables}; {numbers}; COMMIT")
    except sqlite3.OperationalError:  # another process is faster
        connection.rollback()


def _use_wal(connection: sqlite3.Connection) -> None:
    deadline = monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # for this statement, SQLite itself waits for nobody
            if monotonic() >= deadline:
                raise
            sleep(0.01)
        else:
            break
