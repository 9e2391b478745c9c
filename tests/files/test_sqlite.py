"""SQLite files of flagsync's own: what is refused and left as it is, modes, and waiting for other processes."""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from stat import S_IMODE
from time import monotonic
from types import ModuleType
from typing import Any

import pytest

from flagsync._files import sqlite as module
from flagsync._files.sqlite import LOG_BYTES, OLDEST_SQLITE, begin, connect, identity, is_busy, prepare, read
from flagsync._outbox import schema as outbox_sql
from flagsync.cohorts.sqlite import schema as cohorts_sql
from tests.support.files import DIARY, entries, locked, next_descriptor

SECONDS = 10.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "diary.db"


def make(path: Path) -> None:
    prepare(f"{path}", DIARY).close()


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.parent.iterdir() if file.is_file()}


def modes(path: Path) -> dict[str, int]:
    return {file.name.removeprefix(path.name): S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


# What is refused


FOREIGN = (
    "it is a database that belongs to another application, or to another part of flagsync; name another path"
)
NO_DATABASE = "file is not a database; name another path, or remove the file if it is damaged"


def make_directory(path: Path) -> None:
    path.mkdir()


def make_device(path: Path) -> None:
    os.mkfifo(path)


def make_text(path: Path) -> None:
    path.write_text("Dear diary, today I learned that SQLite files are never as short as this.\n" * 100)


def make_short_text(path: Path) -> None:
    path.write_text("Dear diary")


def make_zeros(path: Path) -> None:
    path.write_bytes(bytes(8192))


def make_foreign_database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements or ["CREATE TABLE diary (entry)"]:
            connection.execute(statement)


def make_foreign_wal_database(path: Path) -> None:
    make_foreign_database(path, "PRAGMA journal_mode = WAL", "CREATE TABLE diary (entry)")


def make_foreign_database_without_tables(path: Path) -> None:
    make_foreign_database(path, "PRAGMA application_id = 7")


def make_foreign_wal_database_without_tables(path: Path) -> None:
    make_foreign_database(path, "PRAGMA journal_mode = WAL")


def make_other_format(path: Path) -> None:
    prepare(f"{path}", replace(DIARY, application=DIARY.application + 1)).close()


def leave_log(path: Path, connection: sqlite3.Connection) -> None:
    """Make a file as a process leaves it that is killed while it has a connection."""
    [(_, _, original)] = connection.execute("PRAGMA database_list")
    for ending in ("", "-wal"):
        shutil.copy(f"{original}{ending}", f"{path}{ending}")


def make_foreign_database_with_log(path: Path) -> None:
    with closing(sqlite3.connect(path.with_name("original.db"), isolation_level=None)) as connection:
        connection.execute("CREATE TABLE diary (entry)")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO diary VALUES ('one')")
        leave_log(path, connection)


def make_foreign_database_in_its_log(path: Path) -> None:
    with closing(sqlite3.connect(path.with_name("original.db"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA application_id = 7")
        connection.execute("CREATE TABLE diary (entry)")
        leave_log(path, connection)


def make_version(version: int) -> Callable[[Path], None]:
    def make_file(path: Path) -> None:
        make(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    return make_file


@pytest.mark.parametrize(
    ("make_file", "reason"),
    [
        (make_directory, "it is a directory or a device; name a file"),
        (make_device, "it is a directory or a device; name a file"),
        (make_text, NO_DATABASE),
        (make_short_text, NO_DATABASE),
        (make_zeros, NO_DATABASE),
        (make_foreign_database, FOREIGN),
        (make_foreign_wal_database, FOREIGN),
        (make_foreign_database_without_tables, FOREIGN),
        (make_foreign_wal_database_without_tables, FOREIGN),
        (make_foreign_database_with_log, FOREIGN),
        (make_foreign_database_in_its_log, FOREIGN),
        (make_other_format, FOREIGN),
        (
            make_version(3),
            "it has format 3, but this version of flagsync uses 2: install a newer version of flagsync",
        ),
        (make_version(1), "it has format 1, but this version of flagsync uses 2: copy its entries by hand"),
    ],
)
def test_file_that_is_not_of_this_format_is_refused_and_left_as_it_is(
    make_file: Callable[[Path], None], reason: str, path: Path
) -> None:
    make_file(path)
    path.chmod(0o755)
    before, files = contents(path), modes(path)
    with pytest.raises(ValueError) as raised:
        make(path)
    assert f"{raised.value}" == f"diary: cannot open or create a flagsync file at '{path}': {reason}"
    assert (contents(path), modes(path)) == (before, files)


def test_refused_database_keeps_the_locks_that_this_process_has_on_it(path: Path) -> None:
    make_foreign_database(path)
    with locked(path):
        with pytest.raises(ValueError, match="another application"):
            make(path)
        program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN IMMEDIATE')"
        other = subprocess.run(
            [sys.executable, "-c", program, path], check=False, capture_output=True, text=True
        )
        assert "database is locked" in other.stderr


def test_file_in_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"diary: cannot open or create .*: its directory does not exist; create the directory"
    ):
        make(tmp_path / "missing" / "diary.db")


def test_symbolic_link_to_nowhere_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "missing")
    with pytest.raises(ValueError, match="No such file or directory"):
        make(path)


def test_symbolic_link_to_a_file_is_followed(path: Path, tmp_path: Path) -> None:
    make(path)
    (link := tmp_path / "link").symlink_to(path)
    make(link)


def test_file_needs_a_posix_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = f"{path}"
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(os, "name", "nt")
        with pytest.raises(ValueError, match="it needs the file locks of a POSIX system"):
            prepare(where, DIARY)
    assert not path.exists()


def test_refused_file_is_not_kept_open(path: Path) -> None:
    make_foreign_database(path)
    before = next_descriptor()
    with pytest.raises(ValueError):
        make(path)
    assert next_descriptor() == before


# How a file is made


def test_file_has_its_format(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert read(connection, "PRAGMA application_id") == DIARY.application
        assert read(connection, "PRAGMA user_version") == DIARY.version
        assert read(connection, "PRAGMA page_size") == DIARY.page_bytes
        assert read(connection, "PRAGMA synchronous") == 1
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert not connection.in_transaction


def test_existing_file_keeps_its_content(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        connection.execute("INSERT INTO entries VALUES ('one')")
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert entries(connection) == ["one"]


def test_empty_file_becomes_a_file_of_the_format(path: Path) -> None:
    path.touch()
    make(path)
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert entries(connection) == []


def test_file_with_the_log_of_a_process_that_was_killed_keeps_its_content(path: Path) -> None:
    with closing(prepare(f"{path.with_name('original.db')}", DIARY)) as connection:
        connection.execute("INSERT INTO entries VALUES ('one')")
        leave_log(path, connection)
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert entries(connection) == ["one"]


def test_file_whose_log_was_half_written_back_keeps_its_content(path: Path) -> None:
    texts = ["x" * DIARY.page_bytes] * 10
    original = path.with_name("original.db")
    with closing(prepare(f"{original}", DIARY)) as connection:
        connection.executemany("INSERT INTO entries VALUES (?)", [(text,) for text in texts])
        leave_log(path, connection)
        connection.execute("PRAGMA wal_checkpoint")
        with path.open("r+b") as file:  # the first page counts pages that are still in the log
            file.write(original.read_bytes()[: DIARY.page_bytes])
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert entries(connection) == texts


class FullDisk(sqlite3.Connection):
    def executescript(self, script: str) -> sqlite3.Cursor:
        raise sqlite3.OperationalError("database or disk is full")


def test_file_that_cannot_be_made_says_why(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect
    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", lambda *a, **o: real(*a, **o, factory=FullDisk))
        with pytest.raises(ValueError, match="database or disk is full"):
            make(path)
    make(path)


def test_log_shrinks_again_after_a_reader_that_stayed_has_left(path: Path) -> None:
    log = Path(f"{path}-wal")
    with closing(prepare(f"{path}", DIARY)) as connection, closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM entries").fetchall()
        while log.stat().st_size < 2 * LOG_BYTES:
            connection.executemany("INSERT INTO entries VALUES (?)", [("x" * 100_000,)] * 10)
        reader.rollback()
        for _ in range(2):  # the first one ends with a checkpoint, the second one begins the log anew
            connection.execute("INSERT INTO entries VALUES ('one')")
        assert log.stat().st_size <= LOG_BYTES


# SQLite itself


def test_sqlite_that_is_too_old_is_refused_before_a_file_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 30, 1))
    monkeypatch.setattr(sqlite3, "sqlite_version", "3.30.1")
    with pytest.raises(ValueError, match=r"needs SQLite 3\.31 or newer .* this Python has 3\.30\.1; install"):
        make(path)
    assert not path.exists()


class WithoutJson(sqlite3.Connection):
    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        return super().execute(query.replace("json_each", "no_such_function"), *values)


def test_sqlite_without_json_functions_is_refused_before_a_file_is_made(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: real(*a, **o, factory=WithoutJson))
    with pytest.raises(ValueError, match="with JSON functions"):
        make(path)
    assert not path.exists()


def test_oldest_sqlite_that_is_supported_is_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", OLDEST_SQLITE)
    make(path)


@pytest.mark.parametrize("schema", [outbox_sql, cohorts_sql])
def test_oldest_sqlite_that_is_supported_knows_all_statements(schema: ModuleType) -> None:
    statements = [text for text in vars(schema).values() if isinstance(text, str)]
    # Both are of 3.35.
    newer = [text for text in statements if "RETURNING" in text or "ON CONFLICT DO" in text]
    assert statements
    assert newer == []


def test_reader_does_not_wait_for_a_writer(path: Path) -> None:
    make(path)
    with locked(path), closing(connect(f"{path}", DIARY, monotonic())) as connection:
        assert entries(connection) == []


def test_processes_may_make_the_file_at_the_same_time(tmp_path: Path) -> None:
    for number in range(5):
        path, children = f"{tmp_path / str(number)}.db", list[int]()
        may_start, start = os.pipe()
        for _ in range(4):
            if (child := os.fork()) == 0:
                code = 1
                try:
                    os.close(start)
                    os.read(may_start, 1)
                    with closing(prepare(path, DIARY, SECONDS)) as connection:
                        connection.execute("INSERT INTO entries VALUES ('one')")
                    code = 0
                finally:
                    os._exit(code)
            children.append(child)
        os.close(start)
        os.close(may_start)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        with closing(sqlite3.connect(path)) as connection:
            assert entries(connection) == ["one"] * 4


class LateConnection(sqlite3.Connection):
    """Makes a file when another process has just made it."""

    is_late = True

    def execute(self, query: str, *values: Any) -> sqlite3.Cursor:
        if query.startswith("PRAGMA page_size") and LateConnection.is_late:
            LateConnection.is_late = False
            [(_, _, path)] = super().execute("PRAGMA database_list")
            make(Path(path))
        return super().execute(query, *values)


def test_file_that_another_process_has_just_made_is_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect
    monkeypatch.setattr(LateConnection, "is_late", True)
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: real(*a, **o, factory=LateConnection))
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert not LateConnection.is_late
        assert not connection.in_transaction
        assert entries(connection) == []


# Other processes that write


class Clock:
    """Does something when the time is asked for so often."""

    def __init__(self, calls: int, action: Callable[[], object]) -> None:
        self._calls, self._action = calls, action

    def __call__(self) -> float:
        self._calls -= 1
        if self._calls == 0:
            self._action()
        return monotonic()


def test_prepare_waits_for_a_process_that_writes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path)
    with locked(path) as other:
        monkeypatch.setattr(module, "monotonic", Clock(3, other.close))
        with closing(prepare(f"{path}", DIARY, SECONDS)) as connection:
            assert not connection.in_transaction


def test_prepare_accepts_a_file_that_another_process_writes_to(path: Path) -> None:
    make(path)
    with locked(path), closing(prepare(f"{path}", DIARY, busy_seconds=0.01)) as connection:
        assert not connection.in_transaction


@pytest.fixture
def without_wal(path: Path) -> Path:
    """A file as it is before its first process has finished making it."""
    make(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    return path


def test_process_that_makes_the_file_is_waited_for(without_wal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = list[float]()
    with locked(without_wal) as other:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            other.close()

        monkeypatch.setattr(module, "sleep", pause)
        with closing(connect(f"{without_wal}", DIARY, monotonic() + SECONDS)) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert len(pauses) == 1


def test_process_that_makes_the_file_is_not_waited_for_beyond_the_deadline(without_wal: Path) -> None:
    with locked(without_wal), pytest.raises(sqlite3.OperationalError, match="locked"):
        connect(f"{without_wal}", DIARY, monotonic())


def test_begin_is_false_while_another_process_writes(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        with locked(path):
            assert not begin(connection)
        assert begin(connection)


def test_begin_raises_errors_that_do_not_come_from_other_processes(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        assert begin(connection)
        with pytest.raises(sqlite3.OperationalError, match="within a transaction") as raised:
            begin(connection)
        assert not is_busy(raised.value)


@pytest.mark.parametrize(("code", "expected"), [(5, True), (6, True), (517, True), (8, False), (0, False)])
def test_error_is_busy_by_its_code(code: int, *, expected: bool) -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = code
    assert is_busy(error) is expected


def test_error_without_a_code_is_not_busy() -> None:
    assert not is_busy(sqlite3.ProgrammingError("Cannot operate on a closed database"))


def test_identity_is_of_the_file_at_the_path(path: Path) -> None:
    assert identity(f"{path}") is None
    make(path)
    first = identity(f"{path}")
    (other := path.with_suffix(".other")).touch()
    assert first is not None
    other.replace(path)
    assert identity(f"{path}") not in (None, first)
