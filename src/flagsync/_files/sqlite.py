"""Creates, checks and opens the SQLite files of flagsync.

Guarantee: a file of another application stays unchanged, and so does its log. An empty file becomes a file of flagsync.
Boundary: local file systems; SQLite 3.31 (2020) or newer.
"""

import os
import sqlite3
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import sleep

from flagsync._clock import monotonic
from flagsync._files.place import check_directory, check_file, check_name, hide_from_others, make

OLDEST_SQLITE = (3, 31, 0)  # older ones cannot read every character in JSON
BUSY_SECONDS = 2.0
# How long SQLite itself waits for a lock. Longer waits repeat this one, and give other threads a turn in between.
BUSY_TIMEOUT_SECONDS = 0.05
# The log grows while anybody reads. SQLite truncates it to this size when it writes it from the beginning again.
LOG_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """Describes a kind of file.

    Attributes:
        name: What messages call the file: the option that names it.
        application: SQLite's ``application_id`` of the file.
        version: Version of the tables.
        tables: SQL that creates them.
        page_bytes: Size of a page.
        settings: SQL to run on each connection.
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
    """Open a file, and create it if there is none.

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
                f"it has format {version}, but this version of flagsync uses {kind.version}: {advice}"
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
    """Create or open a file that this process can write to.

    Raises:
        ValueError: That is impossible; the message says why.
    """
    deadline = monotonic() + busy_seconds
    try:
        _check_system()
        check_name(path, kind.name)
        with ExitStack() as stack:
            connection = stack.enter_context(closing(connect(path, kind, deadline)))
            if begin(connection):  # if not, another process is writing, which is fine
                connection.rollback()
            stack.pop_all()
    except (sqlite3.Error, OSError) as error:
        raise ValueError(f"{kind.name}: cannot open or create a flagsync file at {path!r}: {error}") from error
    return connection


def begin(file: sqlite3.Connection | sqlite3.Cursor) -> bool:
    """Begin to write; False if another process writes for longer than ``BUSY_TIMEOUT_SECONDS``."""
    try:
        file.execute("BEGIN IMMEDIATE")
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


def read(file: sqlite3.Connection | sqlite3.Cursor, query: str, *values: object) -> int:
    """Return the first column of the first row, as a number."""
    return int(file.execute(query, values).fetchall()[0][0])


def _check_system() -> None:
    """Raise ``OSError`` if files cannot be shared on this system."""
    if os.name != "posix":
        raise OSError("it needs the file locks of a POSIX system")
    if sqlite3.sqlite_version_info < OLDEST_SQLITE or not _has_json():
        oldest = ".".join(map(str, OLDEST_SQLITE[:2]))
        raise OSError(
            f"it needs SQLite {oldest} or newer with JSON functions, but this Python has {sqlite3.sqlite_version}; "
            "install a newer SQLite, or a Python that includes one"
        )


def _has_json() -> bool:
    """Return whether SQLite has JSON functions, which were a build option before 3.38."""
    with suppress(sqlite3.OperationalError), closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("SELECT value FROM json_each('[]')")
        return True
    return False


def _check_header(path: str, kind: Format) -> None:
    """Raise ``OSError`` for a file of another application, without locking or changing it or reading its log.

    SQLite opens it as immutable. Reading it without SQLite would be dangerous: closing a descriptor of a file releases
    all locks that this process has on it, those of other connections included.
    """
    if not Path(path).stat().st_size:
        return
    with closing(sqlite3.connect(f"{Path(path).as_uri()}?mode=ro&immutable=1", uri=True)) as header:
        # Ignore missing pages: they may be in the log, or another process may be writing them.
        header.execute("PRAGMA writable_schema = ON")
        try:
            _check_application(header, kind)
        except sqlite3.DatabaseError as error:
            raise OSError(f"{error}; name another path, or remove the file if it is damaged") from error


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
        if not read(connection, "SELECT count(*) FROM sqlite_master"):  # another process was faster
            raise


def _use_wal(connection: sqlite3.Connection, deadline: float) -> None:
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:  # this statement does not wait for other processes
            if monotonic() >= deadline:
                raise
            sleep(0.01)
        else:
            break
