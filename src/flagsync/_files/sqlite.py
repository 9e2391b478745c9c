"""SQLite files of flagsync's own: how they are made, checked and opened.

Guarantee: a file that is not flagsync's own is never written to, and nobody but its owner can read one that is.
Boundary: local file systems.
"""

import os
import re
import sqlite3
import stat
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

BUSY_SECONDS = 2.0
# SQLite waits so long by itself; longer waits are repetitions of this one, between which others get their turn.
BUSY_TIMEOUT_SECONDS = 0.05
SIDE_FILES = ("-wal", "-shm")
ESCAPED = re.compile(r"\\([0-7]{3})")  # a character of a path in the list of mount points


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
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    _check(path)
    timeout = max(BUSY_TIMEOUT_SECONDS, deadline - monotonic())
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        if not read(connection, "SELECT count(*) FROM sqlite_master"):
            _make(connection, kind)
        if read(connection, "PRAGMA application_id") != kind.application:
            raise OSError("it belongs to another application, or cannot be written")
        if (version := read(connection, "PRAGMA user_version")) != kind.version:
            advice = kind.advice if version < kind.version else "install a newer version of flagsync"
            raise OSError(
                f"it has format {version}, and this version of flagsync uses {kind.version}: {advice}"
            )
        _use_wal(connection, deadline)
        connection.executescript(f"{kind.settings}; PRAGMA busy_timeout = {int(1000 * BUSY_TIMEOUT_SECONDS)}")
        _hide_from_others(path)
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
        if os.name != "posix":
            raise OSError("it needs the file locks of a POSIX system")
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


def _check(path: str) -> None:
    """Raise for a file that another path leads to: SQLite would keep a log beside each path, and lose data."""
    status = Path(path).stat()
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        raise OSError("it has a hard link; remove the link, or use a symbolic link")
    if status.st_mode & 0o077 and os.geteuid() not in (0, status.st_uid):
        raise OSError("other users can read it, and it belongs to one of them")
    if path in _mount_points():
        raise OSError("it is a mount point; mount its directory instead")


def _mount_points() -> list[str]:
    """Return the mount points of this process, where the system lists them; proc(5) says how."""
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
        return [ESCAPED.sub(lambda found: chr(int(found[1], 8)), mount.split(" ")[4]) for mount in mounts]
    return []


def _hide_from_others(path: str) -> None:
    """Take away the rights of other users; SQLite gives new side files the mode of the file."""
    for file in (path, *(path + ending for ending in SIDE_FILES)):
        with suppress(FileNotFoundError):
            if (mode := stat.S_IMODE(Path(file).stat().st_mode)) & 0o077:
                Path(file).chmod(mode & 0o700)


def _make(connection: sqlite3.Connection, kind: Format) -> None:
    numbers = f"PRAGMA application_id = {kind.application}; PRAGMA user_version = {kind.version}"
    try:
        connection.execute(f"PRAGMA page_size = {kind.page_bytes}")
        connection.executescript(f"BEGIN IMMEDIATE; {kind.tables}; {numbers}; COMMIT")
    except sqlite3.OperationalError:  # another process was faster
        connection.rollback()


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
