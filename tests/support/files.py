"""A kind of file for tests, and somebody else who uses it."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from flagsync._files.sqlite import Format

DIARY = Format(
    name="diary",
    application=0x64696172,
    version=2,
    tables="CREATE TABLE entries (text TEXT)",
    page_bytes=4096,
    settings="PRAGMA synchronous = NORMAL",
    advice="copy its entries by hand",
)


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Keep the write lock of a file, as another program may; closing the connection releases it."""
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def entries(connection: sqlite3.Connection | sqlite3.Cursor) -> list[str]:
    return [text for [text] in connection.execute("SELECT text FROM entries ORDER BY rowid")]


def next_descriptor() -> int:
    """Return the lowest number of a descriptor that is free."""
    os.close(descriptor := os.dup(0))
    return descriptor
