"""The file of an outbox: its tables, how it is made and found.

Guarantee: nothing that is not flagsync's own is ever written to. Boundary: local file systems.
"""

import os
import sqlite3
from collections import Counter
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

BUSY_SECONDS, MAX_WRITERS = 2.0, 10_000
APPLICATION, VERSION = 0x666C6773, 1
FATES = ("delivered", "unchanged", "superseded", "dropped", "rejected")
COLUMNS = ("accepted", *FATES)
SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE destinations (id INTEGER PRIMARY KEY, url TEXT, project TEXT, UNIQUE (url, project));
CREATE TABLE writers (id INTEGER PRIMARY KEY, destination INTEGER,
    accepted INTEGER DEFAULT 0, {", ".join(f"{fate} INTEGER DEFAULT 0" for fate in FATES)});
CREATE TABLE profiles (number INTEGER PRIMARY KEY AUTOINCREMENT, destination INTEGER, distinct_id TEXT,
    evaluated_at REAL, waits_since REAL, fingerprint BLOB, accepted_at REAL, writer INTEGER, json BLOB,
    UNIQUE (destination, distinct_id));
CREATE INDEX waiting ON profiles (destination, waits_since) WHERE json NOTNULL;
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
COMMIT;
"""
KNOWN = """SELECT evaluated_at, fingerprint, accepted_at, writer, json NOTNULL FROM profiles
    WHERE destination = ? AND distinct_id = ?"""
TOUCH = "UPDATE profiles SET evaluated_at = ? WHERE destination = ? AND distinct_id = ?"
STATE = "INSERT OR REPLACE INTO profiles VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # with a number of its own
OLDEST = """SELECT number, distinct_id, fingerprint, json, evaluated_at FROM profiles
    WHERE destination = ? AND json NOTNULL ORDER BY waits_since LIMIT ?"""
# One statement for all: between two, another thread may keep the interpreter for milliseconds.
SENT = "WHERE json NOTNULL AND number IN (SELECT value FROM json_each(?))"
SETTLED = f"SELECT writer, count(*) FROM profiles {SENT} GROUP BY writer"
SETTLE = f"UPDATE profiles SET json = NULL, accepted_at = ? {SENT}"
PENDING = f"SELECT coalesce(sum(accepted - {' - '.join(FATES)}), 0) FROM writers WHERE destination = ?"
COUNT = {column: f"UPDATE writers SET {column} = {column} + ? WHERE id = ?" for column in COLUMNS}
COUNTS = f"SELECT {', '.join(COLUMNS)} FROM writers WHERE id = ?"
TOTALS = f"SELECT {', '.join(f'coalesce(sum({column}), 0)' for column in COLUMNS)} FROM writers"
WAITS = "SELECT EXISTS (SELECT 1 FROM profiles WHERE json NOTNULL)"
UNSETTLED = "SELECT min(waits_since) FROM profiles WHERE destination = ? AND json NOTNULL"
FIRST = "FROM profiles WHERE destination = ? AND json NOTNULL ORDER BY waits_since LIMIT ?"
FIRST_OF = f"SELECT writer, count(*) FROM (SELECT writer {FIRST}) GROUP BY writer"
DROP = f"DELETE FROM profiles WHERE number IN (SELECT number {FIRST})"
FORGET = """DELETE FROM profiles WHERE json ISNULL AND (evaluated_at < ? OR number IN (
    SELECT number FROM profiles WHERE json ISNULL ORDER BY evaluated_at DESC LIMIT -1 OFFSET ?))"""
FORGET_WRITERS = f"""DELETE FROM writers WHERE accepted = {" + ".join(FATES)}
    AND id < (SELECT max(id) FROM writers) - {MAX_WRITERS}"""


def connect(path: str) -> sqlite3.Connection:
    """A connection to the outbox, which is made if there is none; an error if there is something else."""
    with suppress(FileExistsError):  # SQLite gives its other files the same mode
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if not read(connection, "SELECT count(*) FROM sqlite_master"):
            try:
                connection.execute("PRAGMA page_size = 8192")  # some updates fit
                connection.executescript(SCHEMA)
            except sqlite3.OperationalError:  # another process is faster
                connection.rollback()
        if read(connection, "PRAGMA application_id") != APPLICATION:
            raise ValueError("it belongs to another application, or cannot be written")
        if read(connection, "PRAGMA user_version") > VERSION:
            raise ValueError("it was made by a newer version of flagsync")
        _use_wal(connection)
        # A process that dies loses nothing; a machine may lose the last moment.
        connection.executescript("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; COMMIT")
    except BaseException:
        connection.close()
        raise
    return connection


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


def prepare(path: str) -> sqlite3.Connection:
    """Make an outbox or find one; ``ValueError`` if there can be none."""
    try:
        if os.name != "posix":
            raise ValueError("it takes the file locks of a POSIX system")
        return connect(path)
    except (sqlite3.Error, OSError, ValueError) as error:
        raise ValueError(f"outbox is a file of flagsync's own, or a place where to make it: {error}") from error


def totals(path: str) -> Counter[str]:
    """What became of all updates that an outbox has had, and how many are ``pending``."""
    connection = prepare(path)
    row = connection.execute(TOTALS).fetchone()
    connection.close()
    counts = Counter(dict(zip(COLUMNS, row, strict=True)))
    return counts + Counter(pending=counts["accepted"] - sum(counts[fate] for fate in FATES))


def identity(path: str) -> tuple[int, int] | None:
    """Which file is at the path, if there is one."""
    with suppress(FileNotFoundError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino
    return None


def read(connection: sqlite3.Connection, query: str, *values: object) -> int:
    return int(connection.execute(query, values).fetchone()[0])
