"""The file of an outbox: its tables and what is asked of them."""

import sqlite3
from collections import Counter
from typing import TypeAlias

from flagsync._database import Format

MAX_WRITERS = 10_000
FATES = ("delivered", "unchanged", "superseded", "dropped", "rejected")
COLUMNS = ("accepted", *FATES)
TABLES = f"""
CREATE TABLE destinations (id INTEGER PRIMARY KEY, url TEXT, project TEXT, UNIQUE (url, project));
CREATE TABLE writers (id INTEGER PRIMARY KEY, destination INTEGER,
    accepted INTEGER DEFAULT 0, {", ".join(f"{fate} INTEGER DEFAULT 0" for fate in FATES)});
CREATE TABLE profiles (number INTEGER PRIMARY KEY AUTOINCREMENT, destination INTEGER, distinct_id TEXT,
    evaluated_at REAL, waits_since REAL, fingerprint BLOB, accepted_at REAL, writer INTEGER, json BLOB,
    UNIQUE (destination, distinct_id));
CREATE INDEX waiting ON profiles (destination, waits_since) WHERE json NOTNULL;
"""
# Some updates fit into a page. A process that dies loses nothing; a machine may lose the last moment.
OUTBOX = Format("outbox", 0x666C6773, TABLES, page_bytes=8192, settings="PRAGMA synchronous = NORMAL")
KNOWN = """SELECT evaluated_at, fingerprint, accepted_at, writer, json NOTNULL FROM profiles
    WHERE destination = ? AND distinct_id = ?"""
TOUCH = "UPDATE profiles SET evaluated_at = ? WHERE destination = ? AND distinct_id = ?"
STATE = "INSERT OR REPLACE INTO profiles VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)"  # with a number of its own
OLDEST = """SELECT distinct_id, fingerprint, json, evaluated_at, number FROM profiles
    WHERE destination = ? AND json NOTNULL ORDER BY waits_since LIMIT ?"""
# One statement for all: between two, another thread may keep the interpreter for milliseconds.
SENT = "WHERE json NOTNULL AND number IN (SELECT value FROM json_each(?))"
SETTLED = f"SELECT writer, count(*) FROM profiles {SENT} GROUP BY writer"
SETTLE = f"UPDATE profiles SET json = NULL, accepted_at = ? {SENT}"
COUNT = {column: f"UPDATE writers SET {column} = {column} + ? WHERE id = ?" for column in COLUMNS}
KNOWN_WRITER = "SELECT EXISTS (SELECT 1 FROM writers WHERE id = ?)"
SUMS = ", ".join(f"coalesce(sum({column}), 0)" for column in (*COLUMNS, f"accepted - {' - '.join(FATES)}"))
HERE = "SELECT id FROM destinations WHERE url = ? AND project = ?"
IN_TURN = "SELECT url, project, id FROM destinations ORDER BY id <= ?, id"
WAITS = "SELECT EXISTS (SELECT 1 FROM profiles WHERE json NOTNULL)"
UNSETTLED = "SELECT min(waits_since) FROM profiles WHERE destination = ? AND json NOTNULL"
DROP = """DELETE FROM profiles WHERE number IN (SELECT number FROM profiles
    WHERE destination = ? AND json NOTNULL ORDER BY waits_since LIMIT ?) RETURNING writer"""
FORGET = """DELETE FROM profiles WHERE json ISNULL AND (evaluated_at < ? OR number IN (
    SELECT number FROM profiles WHERE json ISNULL ORDER BY evaluated_at DESC LIMIT -1 OFFSET ?))"""
FORGET_WRITERS = f"""DELETE FROM writers WHERE accepted = {" + ".join(FATES)}
    AND id < (SELECT max(id) FROM writers) - {MAX_WRITERS} AND id != ?"""


Fates: TypeAlias = Counter[tuple[int | None, str]]
"""How many updates of a writer had a fate."""


def count(file: sqlite3.Connection, fates: Fates) -> None:
    """Note what became of updates."""
    for (writer, fate), number in (+fates).items():
        file.execute(COUNT[fate], (number, writer))


def pending(file: sqlite3.Connection, destination: int) -> int:
    """How many updates wait for a destination."""
    return counts(file, "destination = ?", destination)["pending"]


def drop(file: sqlite3.Connection, destination: int, number: int) -> int:
    """Drop what has waited longest; how many there were."""
    dropped = file.execute(DROP, (destination, number)).fetchall()
    count(file, Fates((writer, "dropped") for [writer] in dropped))
    return len(dropped)


def counts(file: sqlite3.Connection, condition: str = "true", *values: object) -> Counter[str]:
    """What became of the updates of some writers, and how many are ``pending``."""
    row = file.execute(f"SELECT {SUMS} FROM writers WHERE {condition}", values).fetchone()
    return Counter(dict(zip((*COLUMNS, "pending"), row, strict=True)))
