"""SQLite files of flagsync's own: what is refused and left as it is, modes, and waiting for other processes."""

import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from stat import S_IMODE
from time import monotonic
from typing import Any

import pytest

from flagsync._files import sqlite as module
from flagsync._files.sqlite import begin, connect, identity, is_busy, prepare, read
from tests.support.files import DIARY, entries, locked, next_descriptor

SECONDS = 10.0
OTHER_USER = 12345


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "diary.db"


def make(path: Path) -> None:
    prepare(f"{path}", DIARY).close()


def modes(path: Path) -> dict[str, int]:
    return {file.name.removeprefix(path.name): S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}


# What is refused


def make_directory(path: Path) -> None:
    path.mkdir()


def make_text(path: Path) -> None:
    path.write_text("Dear diary, today I learned that SQLite files are never as short as this.\n" * 100)


def make_foreign_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE diary (entry)")


def make_foreign_wal_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE diary (entry)")


def make_version(version: int) -> Callable[[Path], None]:
    def make_file(path: Path) -> None:
        make(path)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")

    return make_file


@pytest.mark.parametrize(
    ("make_file", "reason"),
    [
        (make_directory, "unable to open database file"),
        (make_text, "file is not a database"),
        (make_foreign_database, "it belongs to another application, or cannot be written"),
        (make_foreign_wal_database, "it belongs to another application, or cannot be written"),
        (
            make_version(3),
            "it has format 3, and this version of flagsync uses 2: install a newer version of flagsync",
        ),
        (make_version(1), "it has format 1, and this version of flagsync uses 2: copy its entries by hand"),
    ],
    ids=["directory", "text", "foreign database", "foreign database with WAL", "newer format", "older format"],
)
def test_file_that_is_not_of_this_format_is_refused_and_left_as_it_is(
    make_file: Callable[[Path], None], reason: str, path: Path
) -> None:
    make_file(path)
    path.chmod(0o755)
    before, files = path.read_bytes() if path.is_file() else None, modes(path)
    with pytest.raises(ValueError) as raised:
        make(path)
    assert f"{raised.value}" == f"diary: cannot open or create a flagsync file at '{path}': {reason}"
    assert (path.read_bytes() if path.is_file() else None, modes(path)) == (before, files)


def test_file_in_a_directory_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"diary: cannot open or create .* No such file or directory"):
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


@pytest.mark.parametrize("name", ["diary.db", "link.db"])
def test_file_with_a_hard_link_is_refused_by_either_name(path: Path, name: str) -> None:
    make(path)
    (path.parent / "link.db").hardlink_to(path)
    with pytest.raises(ValueError, match="it has a hard link; remove the link, or use a symbolic link"):
        make(path.parent / name)


def test_file_whose_hard_link_was_removed_is_accepted(path: Path) -> None:
    make(path)
    (link := path.parent / "link.db").hardlink_to(path)
    link.unlink()
    make(path)


@pytest.fixture(params=["mounted.db", "with space.db"])
def mount_point(request: pytest.FixtureRequest, path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that a file is mounted on; where that is not allowed, a system that says so."""
    make(path)
    (target := path.parent / request.param).touch()
    with suppress(FileNotFoundError):
        if subprocess.run(["mount", "--bind", path, target], check=False, capture_output=True).returncode == 0:
            yield target
            subprocess.run(["umount", target], check=True)
            return
    line = f"36 35 98:0 /x {target} rw - ext4 /dev/root rw\n".replace("with space", "with\\040space")
    monkeypatch.setattr(Path, "read_text", lambda *_: line)
    yield target


def test_mount_point_is_refused(mount_point: Path) -> None:
    with pytest.raises(ValueError, match="it is a mount point; mount its directory instead"):
        make(mount_point)


def test_file_is_accepted_where_the_system_lists_no_mount_points(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", fail)
    make(path)


# Modes


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.mark.usefixtures("no_umask")
def test_new_file_can_be_read_by_its_owner_only(path: Path) -> None:
    with closing(prepare(f"{path}", DIARY)) as connection:
        connection.execute("INSERT INTO entries VALUES ('one')")
        assert modes(path) == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


@pytest.mark.usefixtures("no_umask")
@pytest.mark.parametrize("is_used", [False, True])
def test_existing_file_and_its_side_files_become_the_owners_alone(path: Path, *, is_used: bool) -> None:
    path.touch()
    with closing(sqlite3.connect(path)) as other:
        if is_used:
            make(path)
            other.execute("INSERT INTO entries VALUES ('one')")
            other.commit()
        for file in path.parent.iterdir():
            file.chmod(0o666)
        with closing(prepare(f"{path}", DIARY)) as connection:
            connection.execute("INSERT INTO entries VALUES ('two')")
            assert modes(path) == {"": 0o600, "-wal": 0o600, "-shm": 0o600}


def test_file_of_another_user_that_others_can_read_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    path.chmod(0o640)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    with pytest.raises(ValueError, match="other users can read it, and it belongs to one of them"):
        make(path)
    assert modes(path) == {"": 0o640}


@pytest.mark.parametrize("user", [0, os.geteuid()])
def test_file_that_others_can_read_is_hidden_by_its_owner_and_by_root(
    path: Path, monkeypatch: pytest.MonkeyPatch, user: int
) -> None:
    make(path)
    path.chmod(0o644)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    make(path)
    assert modes(path) == {"": 0o600}


def test_file_of_another_user_that_nobody_else_can_read_is_accepted_if_it_can_be_opened(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path)
    monkeypatch.setattr(os, "geteuid", lambda: OTHER_USER)
    make(path)


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
