"""SQLite files of flagsync's own: how they are made, checked and opened.

Guarantee: a file that is not flagsync's own is left as it is, its log too. An empty file becomes flagsync's own.
Boundary: local file systems; SQLite 3.31, of 2020, or newer.
"""

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from flagsync._clock import monotonic
from flagsync._files.place import check_directory, check_file, check_name, hide_from_others, make

OLDEST_SQLITE = (3, 31, 0)  # older ones do not read every character in JSON
BUSY_SECONDS = 2.0
# SQLite waits so long by itself; longer waits are repetitions of this one, between which others get their turn.
BUSY_TIMEOUT_SECONDS = 0.05
# The log grows as long as somebody reads, and shrinks to this size once it is written from its beginning again.
LOG_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """What is in a kind of file.

    Attributes:
        name: What people call the file: the option that it is given as.
        application: The number that SQLite notes in the file.
        version: Of the tables.
        tables: SQL that makes them.
        page_bytes: Size of a page.
        settings: SQL for each connection.
        advice: What to do with a file of an older version.
    """

    name: str
    application: int
    version: int
    tables: str
    page_bytes: int
    settings: str
    advice: str


def connect(path: str, kind: Format, deadline: float) -> sqlite3.Connection:
    """Open a file, which is made if there is none.

    Raises:
        OSError: The path cannot be used, something else is there, or a second path leads to the file.
        sqlite3.Error: SQLite cannot use the file.
    """
    check_directory(path)
    make(path, path)
    check_file(path)
    _check_header(path, kind)
    timeout = max(BUSY_TIMEOUT_SECONDS, deadline - monotonic())
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        if not read(connection, "SELECT count(*) FROM sqlite_master"):
            _make(connection, kind)
        _check_application(connection, kind)
        if (version := read(connection, "PRAGMA user_version")) != kind.version:
            advice = kind.advice if version < kind.version else "install a newer version of flagsync"
            raise OSError(
                f"it has format {version}, and this version of flagsync uses {kind.version}: {advice}"
            )
        _use_wal(connection, deadline)
        connection.executescript(
            f"""{kind.settings}; PRAGMA journal_size_limit = {LOG_BYTES};
            PRAGMA busy_timeout = {int(1000 * BUSY_TIMEOUT_SECONDS)}"""
        )
        hide_from_others(path)
    except BaseException:
        connection.close()
        raise
    return connection


def prepare(path: str, kind: Format, busy_seconds: float = BUSY_SECONDS) -> sqlite3.Connection:
    """Make a file that can be written, or open one.

    Raises:
        ValueError: There can be none; the message says why.
    """
    deadline = monotonic() + busy_seconds
    try:
        _check_system()
        check_name(path, kind.name)
        with ExitStack() as stack:
            connection = stack.enter_context(closing(connect(path, kind, deadline)))
            if begin(connection):  # a file that another process writes to can be written
                connection.rollback()
            stack.pop_all()
    except (sqlite3.Error, OSError) as error:
        raise ValueError(f"{kind.name}: cannot open or create a flagsync file at {path!r}: {error}") from error
    return connection


def begin(connection: sqlite3.Connection) -> bool:
    """Begin to write; False if another process writes for longer than ``BUSY_TIMEOUT_SECONDS``."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if not is_busy(error):
            raise
        return False
    return True


def is_busy(error: sqlite3.Error) -> bool:
    """Return whether an error only says that another process uses the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def identity(path: str) -> tuple[int, int] | None:
    """Return which file is at the path: its device and inode. None if there is none."""
    with suppress(FileNotFoundError):
        status = Path(path).stat()
        return status.st_dev, status.st_ino
    return None


def read(connection: sqlite3.Connection, query: str, *values: object) -> int:
    """Return the first column of the first row, as a number."""
    return int(connection.execute(query, values).fetchone()[0])


def _check_system() -> None:
    """Raise where no file can be shared."""
    if os.name != "posix":
        raise OSError("it needs the file locks of a POSIX system")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE or not _has_json():
        oldest = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise OSError(
            f"it needs SQLite {oldest} or newer with JSON functions, and this Python has {sqlite3.sqlite_version}; "
            "install a newer SQLite, or a Python that brings one"
        )


def _has_json() -> bool:
    """Return whether SQLite has JSON functions. Before 3.38, whoever built it decided that."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("SELECT value FROM json_each('[]')")
        return True
    return False


def _check_header(path: str, kind: Format) -> None:
    """Raise for a file of another application, without a lock, a change or a look into its log.

    SQLite reads it as a file that never changes. To read it without SQLite would be dangerous: who closes a
    descriptor of a file gives up all locks that this process has on the file, those of other connections too.
    """
    if not Path(path).stat().st_size:
        return
    with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)) as header:
        # Do not mind that pages are missing: they may be in the log, or another process writes them right now.
        header.execute("PRAGMA writable_schema = ON")
        try:
            _check_application(header, kind)
        except sqlite3.DatabaseError as error:
            raise OSError(f"{error}; name another path, or remove a file that is damaged") from error


def _check_application(connection: sqlite3.Connection, kind: Format) -> None:
    if read(connection, "PRAGMA application_id") != kind.application:
        raise OSError(
            "it is a database that belongs to another application, or to another part of flagsync; name another path"
        )


def _make(connection: sqlite3.Connection, kind: Format) -> None:
    numbers = f"PRAGMA application_id = {kind.application}; PRAGMA user_version = {kind.version}"
    try:
        connection.execute(f"PRAGMA page_size = {kind.page_bytes}")
        connection.executescript(f"BEGIN IMMEDIATE; {kind.tables}; {numbers}; COMMIT")
    except sqlite3.OperationalError:
        connection.rollback()
        if not read(connection, "SELECT count(*) FROM sqlite_master"):  # else another process was faster
            raise


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # SQLite does not wait for other processes in this statement
            if monotonic() >= deadline:
                raise
            sleep(0.01)
        else:
            break
