"""SharedFile: its connection, its transactions, waiting for other processes, and forks."""

import ctypes
import gc
import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, sleep

import pytest

from flagsync._files import shared as module
from flagsync._files.shared import INHERITED, SharedFile
from flagsync._process import PerProcess
from tests.support.files import DIARY, entries, locked
from tests.support.forks import in_child

Build = Callable[[], SharedFile]
SECONDS = 10.0
# Python >= 3.12 warns of every fork with threads, which these tests do on purpose.
forks_with_threads = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "diary.db"


@pytest.fixture
def build(path: Path) -> Iterator[Build]:
    files: list[SharedFile] = []

    def build_file() -> SharedFile:
        files.append(SharedFile(f"{path}", DIARY))
        return files[-1]

    yield build_file
    for file in files:
        file.close()


def soon() -> float:
    """Return a deadline that does not come while a test goes well."""
    return monotonic() + SECONDS


def write(file: SharedFile, text: str, deadline: float | None = None) -> None:
    with file.write(soon() if deadline is None else deadline) as connection:
        connection.execute("INSERT INTO entries VALUES (?)", (text,))


def contents(file: SharedFile) -> list[str]:
    with file.read(soon()) as connection:
        return entries(connection)


# One process


def test_file_is_not_opened_before_it_is_used(path: Path, build: Build) -> None:
    assert not build().is_connected
    assert not path.exists()


def test_write_is_committed_at_its_end(build: Build) -> None:
    one, other = build(), build()
    with one.write(soon()) as connection:
        connection.execute("INSERT INTO entries VALUES ('one')")
        assert contents(other) == []
    assert contents(other) == ["one"]


def test_one_connection_serves_all_operations(build: Build) -> None:
    file, connections = build(), set[int]()
    for _ in range(3):
        with file.read(soon()) as connection:
            connections.add(id(connection))
        with file.write(soon()) as connection:
            connections.add(id(connection))
    assert len(connections) == 1


def test_write_that_raises_is_rolled_back(build: Build) -> None:
    file = build()
    write(file, "one")

    def fail() -> None:
        with file.write(soon()) as connection:
            connection.execute("INSERT INTO entries VALUES ('two')")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert not file.is_connected
    assert contents(file) == ["one"]


def test_error_makes_a_new_connection(build: Build) -> None:
    file = build()
    with pytest.raises(sqlite3.OperationalError, match="no such table"), file.read(soon()) as connection:
        connection.execute("SELECT * FROM nowhere")
    assert not file.is_connected
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    assert contents(file) == []


class FullDisk(sqlite3.Connection):
    """Finds out when it commits."""

    def commit(self) -> None:
        raise sqlite3.OperationalError("database or disk is full")


def test_commit_that_fails_leaves_nothing_behind(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    file, real = build(), sqlite3.connect
    with monkeypatch.context() as full:
        full.setattr(sqlite3, "connect", lambda *a, **o: real(*a, **o, factory=FullDisk))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            write(file, "one")
    assert contents(file) == []


def test_disconnected_file_is_opened_again_when_it_is_needed(build: Build) -> None:
    file = build()
    write(file, "one")
    file.disconnect()
    file.disconnect()
    assert not file.is_connected
    assert contents(file) == ["one"]


def test_close_releases_the_lease_and_the_connection(build: Build) -> None:
    one, other = build(), build()
    write(one, "one")
    assert one.lease.try_acquire()
    one.close()
    assert not one.is_connected
    assert other.lease.try_acquire()
    write(one, "two")
    assert contents(one) == ["one", "two"]


def test_removed_file_is_made_again(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")
    path.unlink()
    write(file, "two")
    assert contents(file) == ["two"]


def test_replaced_file_is_opened(path: Path, tmp_path: Path, build: Build) -> None:
    file, other = build(), SharedFile(f"{tmp_path / 'other.db'}", DIARY)
    write(file, "one")
    write(other, "two")
    other.close()
    for ending in ("-wal", "-shm"):  # which SQLite would take for those of the new file
        Path(f"{path}{ending}").unlink()
    (tmp_path / "other.db").replace(path)
    assert contents(file) == ["two"]


def test_hard_link_that_is_made_later_is_refused_for_new_connections(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")
    path.with_suffix(".link").hardlink_to(path)
    with pytest.raises(OSError, match="hard link"):
        contents(SharedFile(f"{path.with_suffix('.link')}", DIARY))
    assert contents(file) == ["one"]
    file.disconnect()
    with pytest.raises(OSError, match="hard link"):
        contents(file)
    path.with_suffix(".link").unlink()
    assert contents(file) == ["one"]


# Other processes that write


def test_write_gives_up_at_its_deadline_while_another_process_writes(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")
    with locked(path):
        with pytest.raises(sqlite3.OperationalError, match="another process keeps the file locked"):
            write(file, "two", monotonic() + 0.1)
        assert contents(file) == ["one"]
    write(file, "three")
    assert contents(file) == ["one", "three"]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set once a writer has found the file locked, and gives others their turn."""
    event = threading.Event()

    def pause(seconds: float) -> None:
        event.set()
        sleep(seconds)

    monkeypatch.setattr(module, "sleep", pause)
    return event


@pytest.fixture
def waiting(path: Path, build: Build, waits: threading.Event) -> Iterator[SharedFile]:
    """A file that a thread wants to write to, while another process keeps it locked."""
    file = build()
    write(file, "one")
    with locked(path) as other:
        thread = threading.Thread(target=write, args=(file, "two"))
        thread.start()
        assert waits.wait(SECONDS)
        yield file
        assert thread.is_alive()
        other.close()
        thread.join(SECONDS)
        assert not thread.is_alive()
    assert contents(file) == ["one", "two"]


def test_another_thread_reads_while_a_write_waits(waiting: SharedFile) -> None:
    assert contents(waiting) == ["one"]


def test_another_write_keeps_its_deadline_while_a_write_waits(waiting: SharedFile) -> None:
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write(waiting, "three", monotonic())


@forks_with_threads
def test_fork_is_not_held_up_while_a_write_waits(path: Path, waiting: SharedFile) -> None:
    assert in_child(lambda: contents(SharedFile(f"{path}", DIARY)) == ["one"])


# Forks


def test_fork_closes_the_connection_until_it_is_needed_again(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")

    def child_writes() -> bool:
        own = SharedFile(f"{path}", DIARY)
        is_inherited = file.is_connected
        write(own, "two")
        own.close()
        return not is_inherited

    assert in_child(child_writes)
    assert not file.is_connected
    write(file, "three")
    assert contents(file) == ["one", "two", "three"]


def test_forked_child_inherits_no_lease(path: Path, build: Build) -> None:
    file = build()
    assert file.lease.try_acquire()

    def child_has_none() -> bool:
        return not file.lease.is_held and not SharedFile(f"{path}", DIARY).lease.try_acquire()

    assert in_child(child_has_none)
    assert file.lease.try_acquire()
    assert not build().lease.try_acquire()


def test_lease_ends_with_the_parent_though_a_forked_child_lives_on(path: Path, build: Build) -> None:
    may_end, end = os.pipe()
    is_there, here = os.pipe()

    def child_ends_before_its_child() -> bool:
        file = SharedFile(f"{path}", DIARY)
        is_held = file.lease.try_acquire()
        if os.fork() == 0:
            os.close(end)
            os.write(here, b"x")
            os.read(may_end, 1)
            os._exit(0)
        os.read(is_there, 1)
        return is_held

    assert in_child(child_ends_before_its_child)
    assert build().lease.try_acquire()
    for descriptor in (may_end, end, is_there, here):
        os.close(descriptor)


@forks_with_threads
def test_forked_child_holds_no_lock_of_its_parent(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")

    def another_thread_reads() -> bool:
        found = list[list[str]]()
        thread = threading.Thread(target=lambda: found.append(contents(file)), daemon=True)
        thread.start()
        thread.join(SECONDS)
        return found == [["one"]]

    assert in_child(another_thread_reads)
    assert another_thread_reads()


@forks_with_threads
def test_files_of_the_parent_that_a_thread_of_a_forked_child_collects_raise_nothing(path: Path) -> None:
    files, raised = [SharedFile(f"{path}", DIARY)], list[object]()
    write(files[0], "one")

    def collects() -> bool:
        sys.unraisablehook = raised.append
        files.clear()
        module._open_files.get()
        thread = threading.Thread(target=gc.collect)
        thread.start()
        thread.join()
        return not raised

    assert in_child(collects)
    files[0].close()


@forks_with_threads
def test_files_may_be_used_while_others_fork(path: Path, build: Build) -> None:
    file, has_ended, count = build(), threading.Event(), 0

    def fork() -> None:
        for _ in range(20):
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)
        has_ended.set()

    thread = threading.Thread(target=fork)
    thread.start()
    while not has_ended.is_set():
        count += 1
        write(file, f"{count}")
    thread.join()
    assert contents(file) == [f"{number}" for number in range(1, count + 1)]


@forks_with_threads
def test_several_threads_may_fork_at_the_same_time(build: Build) -> None:
    files = [build() for _ in range(2)]

    def fork(file: SharedFile) -> None:
        for number in range(10):
            write(file, f"{number}")
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)

    threads = [threading.Thread(target=fork, args=(file,)) for file in files]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(contents(files[0])) == 20


def fork_past_hooks() -> int:
    """Fork as C code does, so that Python calls none of its hooks."""
    return int(ctypes.PyDLL(None).fork())


def test_file_that_was_open_when_c_code_forked_is_an_error_in_the_child(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")

    def child_is_refused() -> bool:
        try:
            contents(SharedFile(f"{path}", DIARY))
        except OSError as error:
            own = SharedFile(f"{path}-own", DIARY)
            write(own, "own")
            return f"{error}" == INHERITED and contents(own) == ["own"]
        return False

    assert in_child(child_is_refused, fork_past_hooks)
    assert contents(file) == ["one"]


def test_file_that_was_open_when_c_code_forked_is_an_error_in_the_childs_own_children(
    path: Path, build: Build
) -> None:
    file = build()
    write(file, "one")

    def is_refused() -> bool:
        with pytest.raises(OSError, match="forked without Python's hooks"):
            contents(SharedFile(f"{path}", DIARY))
        return True

    assert in_child(lambda: is_refused() and in_child(is_refused), fork_past_hooks)
    assert in_child(lambda: in_child(is_refused), fork_past_hooks)
    assert contents(file) == ["one"]


def test_file_that_was_not_open_when_c_code_forked_is_used_by_the_child(path: Path, build: Build) -> None:
    file = build()
    write(file, "one")
    file.disconnect()
    assert in_child(lambda: contents(SharedFile(f"{path}", DIARY)) == ["one"], fork_past_hooks)


def test_process_does_not_use_what_it_has_inherited(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in the children above, which no measure of coverage sees.
    file, parent = build(), module._open_files.get()
    write(file, "one")
    assert file.lease.try_acquire()
    monkeypatch.setattr(module, "_open_files", PerProcess(lambda _: module._OpenFiles(parent)))
    with pytest.raises(OSError, match="forked without Python's hooks"):
        contents(SharedFile(f"{path}", DIARY))
    assert not file.lease.is_held


# Finalizers


def test_abandoned_file_takes_no_lock_and_releases_the_lease(build: Build) -> None:
    file, other = build(), build()
    assert file.lease.try_acquire()
    may_end, has_begun = threading.Event(), threading.Event()

    def hold() -> None:
        with file.write(soon()):
            has_begun.set()
            assert may_end.wait(SECONDS)

    thread = threading.Thread(target=hold)
    thread.start()
    assert has_begun.wait(SECONDS)
    file.abandon()  # which would wait for ever otherwise
    file.abandon()
    assert not file.is_connected
    assert other.lease.try_acquire()
    may_end.set()
    thread.join()


def test_connection_of_an_abandoned_file_is_closed_when_another_one_is_opened(build: Build) -> None:
    file = build()
    with file.read(soon()) as connection:
        pass
    file.abandon()
    assert connection.execute("SELECT 1").fetchone() == (1,)
    assert contents(build()) == []
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


def test_connection_of_an_abandoned_file_is_closed_before_a_fork(build: Build) -> None:
    file = build()
    with file.read(soon()) as connection:
        pass
    file.abandon()
    assert in_child(lambda: True)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
