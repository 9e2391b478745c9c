"""The outbox in a file: what it refuses, what it shares, what it survives."""

import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import time
from typing import Any

import pytest

from flagsync import DeliveryError, FlagSync, Stats, _database, _host, _outbox, _schema, _sqlite, outbox_stats
from flagsync._host import Process, SharedFile
from flagsync._outbox import Destination, Update
from flagsync._report import Reporter
from flagsync._schema import MAX_WRITERS, OUTBOX
from flagsync._sqlite import FileOutbox
from flagsync.testing import MixpanelServer

Build = Callable[..., FileOutbox]
BuildClient = Callable[..., FlagSync]
BEGAN = time() - 1000
HERE, THERE = Destination("here"), Destination("there")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def build(path: Path) -> Iterator[Build]:
    outboxes: list[FileOutbox] = []

    def build_outbox(destination: Destination = HERE, resend: float = 300.0) -> FileOutbox:
        outboxes.append(FileOutbox(str(path), destination, 1000, resend, Reporter(None)))
        return outboxes[-1]

    yield build_outbox
    for outbox in outboxes:
        outbox.close()


def put(outbox: FileOutbox, state: str, second: float = 1.0) -> None:
    """Let a state such as ``"ann=1"`` wait in the file, evaluated at a second since ``BEGAN``."""
    distinct_id, _, value = state.partition("=")
    outbox.put(distinct_id, None, value.encode(), value.encode(), BEGAN + second)
    outbox.save()


def states(updates: list[Update]) -> list[str]:
    return [f"{update.distinct_id}={update.json.decode()}" for update in updates]


def deliver(outbox: FileOutbox) -> list[str]:
    batch = outbox.take()
    outbox.settle(batch, [])
    return states(batch)


# What is refused


def make_directory(path: Path) -> None:
    path.mkdir()


def make_text(path: Path) -> None:
    path.write_text(
        "Dear diary, today I learned of SQLite files, which are never as short as this one.\n" * 100
    )


def make_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE diary (entry)")
    connection.close()


def make_newer(path: Path) -> None:
    connection = _database.connect(str(path), OUTBOX)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


@pytest.mark.parametrize("make", [make_directory, make_text, make_database, make_newer])
def test_what_is_not_flagsyncs_own_is_refused_and_left_as_it_is(
    make: Callable[[Path], None], path: Path, flagsync: BuildClient
) -> None:
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ValueError, match="outbox is a file of flagsync's own"):
        flagsync(outbox=path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_place_that_does_not_exist_is_refused(tmp_path: Path, flagsync: BuildClient) -> None:
    with pytest.raises(ValueError, match="outbox is a file"):
        flagsync(outbox=tmp_path / "missing" / "outbox.db")


def test_what_is_no_path_is_refused(flagsync: BuildClient) -> None:
    with pytest.raises(ValueError, match="outbox is the path of a file, or None"):
        flagsync(outbox=5)


def test_nobody_else_reads_the_file(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    assert outbox.waiting()
    assert {oct(file.stat().st_mode) for file in path.parent.iterdir()} == {"0o100600"}


def test_who_reads_the_file_does_not_wait_for_who_writes(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    unlock = lock(path)
    assert outbox.oldest() == BEGAN + 1
    assert outbox.kept() == 1
    assert states(outbox.take()) == ["ann=1"]
    unlock()


def test_two_processes_may_make_the_file_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _database.connect(str(path), OUTBOX).close()
    monkeypatch.setattr(
        _database, "read", lambda _, query: 0 if "sqlite_master" in query else OUTBOX.application
    )
    monkeypatch.setattr(_database, "VERSION", OUTBOX.application)
    connection = _database.connect(str(path), OUTBOX)  # which has seen no tables
    assert not connection.in_transaction
    connection.close()


# What is shared


def test_one_of_the_outboxes_sends_what_all_of_them_put(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=1", 1)
    put(other, "bob=1", 2)
    assert one.waiting()
    assert not other.waiting()
    assert other.take() == []
    assert deliver(one) == ["ann=1", "bob=1"]
    assert other.counts()["delivered"] == 1
    assert other.oldest() is None


def test_who_is_not_elected_holds_no_file_open_for_having_asked(build: Build) -> None:
    def next_descriptor() -> int:
        os.close(descriptor := os.dup(0))
        return descriptor

    one, other = build(), build()
    put(one, "ann=1")
    put(other, "bob=1")
    assert one.waiting()
    before = next_descriptor()
    assert not other.waiting()
    assert next_descriptor() == before


def test_what_cannot_be_saved_whole_is_not_saved_in_part(build: Build, path: Path) -> None:
    outbox = build()
    put(outbox, "ann=1")
    outbox.put("bob", None, b"1", b"1", BEGAN + 2)
    put(outbox, "\ud800=1", 3)  # which SQLite cannot hold
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT distinct_id FROM profiles").fetchall() == [("ann",)]


def test_when_the_one_that_sends_ends_another_takes_its_place(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=1")
    assert one.waiting()
    one.close()
    assert one.kept() == 1
    put(other, "bob=1", 2)
    assert deliver(other) == ["ann=1", "bob=1"]
    assert other.kept() == 0


def test_the_latest_evaluation_wins_whenever_it_comes(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=new", 20)
    put(other, "ann=old", 10)
    assert deliver(one) == ["ann=new"]
    put(other, "ann=old", 15)
    assert deliver(one) == []
    assert other.counts()["superseded"] == 2


def test_an_evaluation_that_changed_nothing_counts_as_the_latest_too(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=A", 10)
    assert deliver(one) == ["ann=A"]
    put(one, "ann=A", 30)
    put(other, "ann=B", 20)
    assert deliver(one) == []


def test_what_another_process_overwrites_is_superseded_for_the_one_that_put_it(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=1", 10)
    put(other, "ann=2", 20)
    assert deliver(one) == ["ann=2"]
    assert +one.counts() == {"superseded": 1}
    assert +other.counts() == {"delivered": 1}


def test_a_clock_that_was_put_back_does_not_make_the_past_win(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=tomorrow", 86400)
    assert deliver(outbox) == ["ann=tomorrow"]
    put(outbox, "ann=today", 1)
    assert deliver(outbox) == ["ann=today"]


def test_projects_never_mix_and_take_turns(build: Build) -> None:
    here, there = build(HERE), build(THERE)
    for number in range(2):
        put(here, f"ann=h{number}")
        put(there, f"ann=t{number}")
        put(there, f"bob=t{number}")
        batches = [deliver(here) for _ in range(2)]
        assert sorted(batches) == [[f"ann=h{number}"], [f"ann=t{number}", f"bob=t{number}"]]
    put(here, "ann=h2")
    put(there, "ann=t2")
    assert states(here.take({HERE})) == ["ann=t2"]


def test_when_the_process_that_sends_dies_another_takes_its_place(path: Path, build: Build) -> None:
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        own = FileOutbox(str(path), HERE, 1000, 300.0, Reporter(None))
        put(own, "ann=1")
        os.write(write, b"elected" if own.waiting() else b"not")
        signal.pause()
    assert os.read(read, 100) == b"elected"
    outbox = build()
    put(outbox, "bob=1", 2)
    assert not outbox.waiting()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert deliver(outbox) == ["ann=1", "bob=1"]


def test_what_waited_for_a_project_that_is_gone_is_sent_where_it_belongs(build: Build) -> None:
    former = build(THERE)
    put(former, "ann=1")
    former.close()
    outbox = build(HERE)
    put(outbox, "bob=1", 2)
    assert {update.destination for _ in range(2) for update in outbox.take()} == {HERE, THERE}


def test_a_full_request_waits_when_there_are_2000(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "MAX_BATCH_UPDATES", 2)
    outbox = build()
    put(outbox, "ann=1")
    assert not outbox.full()
    put(outbox, "bob=1")
    assert outbox.full()
    assert deliver(outbox) == ["ann=1", "bob=1"]
    put(outbox, "cid=1")
    assert not outbox.full()


def test_a_full_request_waits_when_there_is_as_much_as_the_last_one_took(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_outbox, "MAX_BATCH_BYTES", 8)
    outbox = build()
    for name in ("ann", "bob", "cid"):
        put(outbox, f"{name}=12")
    assert not outbox.full()
    assert deliver(outbox) == ["ann=12", "bob=12"]
    put(outbox, "dan=12")
    assert outbox.full()


def test_many_puts_are_saved_without_being_told_to(build: Build, path: Path) -> None:
    outbox = build()
    for number in range(_sqlite.SAVE_UPDATES):
        outbox.put(str(number), None, b"", b"1", 1.0)
    assert outbox_stats(path).pending == _sqlite.SAVE_UPDATES


def test_what_was_delivered_is_forgotten_by_age_and_number(
    build: Build, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "PRUNE_SECONDS", -1.0)
    monkeypatch.setattr(_sqlite, "MAX_ROWS", 2)
    outbox = build()
    for name, second in (("old", -31 * 86400), ("ann", 1), ("bob", 2), ("cid", 3)):
        put(outbox, f"{name}=1", second)
        deliver(outbox)
    put(outbox, "dan=1", 4)
    connection = _database.connect(str(path), OUTBOX)
    names = [name for (name,) in connection.execute("SELECT distinct_id FROM profiles ORDER BY evaluated_at")]
    connection.close()
    assert names == ["bob", "cid", "dan"]


def test_a_file_that_is_not_there_has_no_totals(path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        outbox_stats(path)
    assert not path.exists()


# What goes wrong later


def lock(path: Path) -> Callable[[], None]:
    """Hold the file as another program may; returns how to let it go."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection.close


def overwrite(path: Path) -> Callable[[], None]:
    for file in path.parent.iterdir():
        file.write_bytes(b"not a database any more" * 1000)
    return lambda: None


def replace(path: Path) -> Callable[[], None]:
    path.unlink()
    make_database(path)
    return path.unlink


@pytest.mark.parametrize("damage", [lock, overwrite, replace])
def test_a_file_that_cannot_be_used_is_reported_once_and_memory_takes_its_place(
    damage: Callable[[Path], Callable[[], None]],
    path: Path,
    flagsync: BuildClient,
    mixpanel: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    errors: list[DeliveryError] = []
    client = flagsync(outbox=path, on_error=errors.append)
    mend = damage(path)
    for number in range(3):
        client.get_identity_flags(f"user_{number}")
        assert client.flush()
        client.get_identity_flags(f"user_{number}")
        assert client.flush()
    mend()
    assert {*mixpanel.profiles} == {"user_0", "user_1", "user_2"}
    assert client.stats() == Stats(accepted=6, delivered=3, unchanged=3, requests=3)
    [error] = errors
    assert error.reason.startswith("The outbox cannot be used, memory takes its place")
    assert error.will_retry


def test_what_memory_has_goes_into_the_file_once_that_can_be_used_again(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(_sqlite, "BROKEN_SECONDS", 0.0)
    _database.prepare(str(path), OUTBOX).close()
    outbox, unlock = build(), lock(path)
    put(outbox, "ann=1")
    outbox.save()  # in vain, once more
    assert (outbox.full(), outbox.waiting(), outbox.oldest()) == (False, True, BEGAN + 1)
    batch = outbox.take()
    outbox.settle([], [])  # Mixpanel is down, too
    unlock()
    put(outbox, "bob=1")
    assert states(batch) == ["ann=1"]
    assert outbox_stats(path).pending == 2
    assert deliver(outbox) == ["ann=1", "bob=1"]
    outbox._report.losses()
    assert [message.split(",")[0] for message in logged()] == [
        "The outbox cannot be used",
        "The outbox is in use again",
    ]


def test_what_memory_delivered_meanwhile_is_newer_than_what_waited_in_the_file(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(_sqlite, "BROKEN_SECONDS", 0.0)
    outbox = build()
    put(outbox, "ann=old", 1)
    put(outbox, "bob=A", 1)
    assert outbox.oldest() == BEGAN + 1
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        put(outbox, "ann=new", 2)
        put(outbox, "bob=B", 2)
        assert outbox.oldest() == 0  # what the file has is not settled
        assert deliver(outbox) == ["ann=new", "bob=B"]
    put(outbox, "bob=A", 3)
    assert deliver(outbox) == ["bob=A"]
    assert +outbox.counts() == {"delivered": 3, "superseded": 2}
    assert outbox_stats(path) == Stats(accepted=3, delivered=1, superseded=2)


def test_what_waits_in_a_file_that_cannot_be_used_is_delivered_from_memory_once_it_is_evaluated_again(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    outbox = build()
    put(outbox, "ann=1")
    unlock = lock(path)
    put(outbox, "bob=1")
    put(outbox, "ann=1")
    batch = deliver(outbox)
    unlock()
    assert batch == ["bob=1", "ann=1"]


def test_a_state_that_is_evaluated_again_is_newer_than_what_another_process_made_of_it(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sqlite, "SAVE_SECONDS", 1e9)
    one, other = build(), build()
    one.put("ann", None, b"A", b"A", BEGAN + 1)
    put(other, "ann=B", 2)
    one.put("ann", None, b"A", b"A", BEGAN + 3)
    one.save()
    assert deliver(one) == ["ann=A"]


class FullDisk(sqlite3.Connection):
    """Finds out when it commits."""

    full = True

    def commit(self) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().commit()


def test_a_commit_that_fails_leaves_no_trace(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=FullDisk))
    outbox = build()
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]
    assert (outbox.kept(), outbox.oldest()) == (0, None)
    monkeypatch.setattr(FullDisk, "full", False)


@pytest.mark.parametrize("others_prune", [False, True])
def test_a_writer_that_was_idle_while_many_came_and_went_keeps_its_counts(
    others_prune: bool,
    path: Path,
    flagsync: BuildClient,
    mixpanel: MixpanelServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_schema, "FORGET_WRITERS", _schema.FORGET_WRITERS.replace(str(MAX_WRITERS), "1"))
    monkeypatch.setattr(_sqlite, "PRUNE_SECONDS", -1.0)
    errors: list[DeliveryError] = []
    chief = flagsync(outbox=path)
    if others_prune:  # who is elected does
        chief.get_identity_flags("chief")
        assert chief.flush()
    idle = flagsync(outbox=path, on_error=errors.append)
    idle.get_identity_flags("user_1")
    assert idle.flush()
    for number in range(4):
        with flagsync(outbox=path) as job:
            job.get_identity_flags(f"job_{number}")
            assert job.flush()
    chief.get_identity_flags("chief", {"plan": "premium"})
    assert chief.flush()
    assert idle.stats().delivered == 1
    idle.get_identity_flags("user_2")
    assert idle.flush()
    assert idle.close()
    assert (idle.stats().delivered, idle.stats().pending, errors) == (2, 0, [])


def test_what_memory_tried_to_deliver_is_not_taken_for_what_the_file_says(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(_sqlite, "BROKEN_SECONDS", 0.0)
    outbox = build()
    put(outbox, "ann=A", 1)
    assert deliver(outbox) == ["ann=A"]
    unlock = lock(path)
    put(outbox, "ann=B", 2)
    assert states(outbox.take()) == ["ann=B"]
    outbox.settle([], [])  # it arrives, the answer does not
    put(outbox, "ann=A", 3)
    unlock()
    outbox.save()
    assert deliver(outbox) == ["ann=A"]


def test_an_equal_evaluation_is_known_while_the_file_cannot_be_used(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    outbox = build()
    assert outbox.put("ann", 1, b"A", b"A", BEGAN + 1)
    assert not outbox.unchanged("ann", 1)
    unlock = lock(path)
    outbox.save()
    assert outbox.unchanged("ann", 1)
    assert not outbox.put("ann", 2, b"A", b"A", BEGAN + 2)
    unlock()


def test_a_file_that_takes_the_place_of_a_closed_one_is_signed_in_even_with_the_same_inode(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "identity", lambda _: (1, 1))
    outbox = build()
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]
    outbox._file.disconnect()  # as each fork does
    for file in path.parent.iterdir():
        file.unlink()
    put(outbox, "bob=1")
    assert deliver(outbox) == ["bob=1"]
    assert (outbox.counts()["delivered"], outbox.kept()) == (2, 0)


def test_what_was_delivered_before_a_file_was_removed_still_counts_and_what_waited_is_lost(
    path: Path, build: Build, logged: Callable[[], list[str]]
) -> None:
    outbox = build()
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]
    put(outbox, "bob=1")
    for file in path.parent.iterdir():
        file.unlink()
    put(outbox, "cid=1")
    assert deliver(outbox) == ["cid=1"]
    assert +outbox.counts() == {"delivered": 2, "dropped": 1}
    assert outbox.kept() == 0
    outbox._report.losses()
    assert logged() == ["The file of the outbox was removed: 1 update lost"]


def test_who_prunes_does_not_forget_itself(path: Path, build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    outbox = build()
    put(outbox, "ann=1")
    assert deliver(outbox) == ["ann=1"]
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as others:
        others.execute("INSERT INTO writers (id, destination) VALUES (?, 1)", (2 * MAX_WRITERS,))
    monkeypatch.setattr(_sqlite, "PRUNE_SECONDS", -1.0)
    put(outbox, "ann=1")
    assert +outbox.counts() == {"delivered": 1, "unchanged": 1}
    assert outbox_stats(path) == Stats(accepted=2, delivered=1, unchanged=1)


def test_what_is_dropped_at_the_bound_is_reported_by_number(
    build: Build, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], list[str]]
) -> None:
    monkeypatch.setattr(_sqlite, "MAX_ROWS", 2)
    monkeypatch.setattr(_sqlite, "SAVE_SECONDS", 1e9)
    outbox = build()
    for number in range(5):
        outbox.put(f"{number}", None, b"1", b"1", BEGAN + number)
    outbox.save()
    outbox._report.losses()
    assert logged() == ["max_pending is reached, the oldest make room: 3 updates lost"]


def test_what_memory_delivered_is_remembered_within_bounds(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(_sqlite, "REMEMBERED_PROFILES", 1)
    path.mkdir()
    outbox = build()
    for state in ("ann=1", "bob=1"):
        put(outbox, state)
        assert deliver(outbox) == [state]
    assert [*outbox._sent] == ["bob"]


def test_a_flush_waits_for_a_state_that_is_evaluated_again_meanwhile(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", 1)
    put(outbox, "ann=1", 9)
    assert outbox.oldest() == BEGAN + 1


def test_a_file_that_was_removed_is_made_again(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", 1)
    path.unlink()
    put(outbox, "bob=1", 2)
    assert outbox_stats(path).pending == 1
    assert deliver(outbox) == ["bob=1"]


def test_what_was_sent_out_of_a_file_settles_nothing_in_another(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1", 1)
    batch = outbox.take()
    path.unlink()
    put(outbox, "bob=1", 2)
    outbox.settle(batch, [])
    assert deliver(outbox) == ["bob=1"]


def test_who_cannot_use_the_file_lets_another_send(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    one, other = build(), build()
    put(one, "ann=1")
    assert one.waiting()
    unlock = lock(path)
    put(one, "bob=1")
    unlock()
    put(other, "cid=1")
    assert deliver(other) == ["ann=1", "cid=1"]


def test_a_closed_outbox_opens_no_file(build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    outbox.close()
    assert outbox.counts() == {}
    assert outbox._file._connection is None


def test_a_state_in_flight_is_not_overtaken_by_those_who_come_after_its_sender(build: Build) -> None:
    one, other = build(), build()
    put(one, "ann=old", 1)
    batch = one.take()
    one.close()  # while Mixpanel hangs
    put(other, "ann=new", 2)
    assert not other.waiting()
    one.settle(batch, [])
    assert deliver(other) == ["ann=new"]


def test_processes_that_make_the_file_wait_for_each_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _database.connect(str(path), OUTBOX).close()
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("PRAGMA journal_mode = DELETE")
    reader.execute("BEGIN EXCLUSIVE")
    tries = list[float]()

    def pause(seconds: float) -> None:
        tries.append(seconds)
        reader.close()

    monkeypatch.setattr(_database, "sleep", pause)
    connection = sqlite3.connect(path, timeout=0)
    _database._use_wal(connection)
    connection.close()
    assert tries == [0.01]


def test_who_waits_too_long_for_the_file_gives_up(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.0)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("CREATE TABLE diary (entry)")
        other.execute("BEGIN EXCLUSIVE")
        with (
            pytest.raises(sqlite3.OperationalError, match="locked"),
            contextlib.closing(sqlite3.connect(path, timeout=0)) as connection,
        ):
            _database._use_wal(connection)


def test_a_forked_child_closes_what_only_its_parent_has_a_use_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_host, "_processes", {})
    with monkeypatch.context() as before:
        before.setattr(os, "getpid", lambda: 1)
        file = SharedFile(str(path), OUTBOX)
        assert file.elected()
    descriptor = file.ballot
    _host._after_fork()
    assert file.ballot is None
    assert isinstance(descriptor, int)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_an_outbox_takes_a_posix_system(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = str(path)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("flagsync._database.os.name", "nt")
        with pytest.raises(ValueError, match="POSIX"):
            _database.prepare(place, OUTBOX)


def test_a_full_disk_costs_nothing(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    outbox._file.open().execute("PRAGMA max_page_count = 1")
    for number in range(100):
        outbox.put(f"{number}", None, b"", b"x" * 1000, 1.0)
    outbox.save()
    assert len(outbox.take()) == 100


def test_a_process_that_was_forked_past_pythons_hooks_leaves_the_file_alone(
    path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = build()
    parent = Process()
    parent.connected.append(outbox._file)
    monkeypatch.setitem(_host._processes, os.getpid() + 1, parent)
    put(outbox, "ann=1")
    assert not path.exists()
    assert deliver(outbox) == ["ann=1"]


def test_a_fork_waits_for_a_transaction_and_both_sides_go_on(path: Path, build: Build) -> None:
    outbox = build()
    put(outbox, "ann=1")
    assert outbox.waiting()  # it is elected
    if (child := os.fork()) == 0:
        own = FileOutbox(str(path), HERE, 1000, 300.0, Reporter(None))
        put(own, "bob=1", 2)
        os._exit(own.waiting() or Process.current().connected != [own._file])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert deliver(outbox) == ["ann=1", "bob=1"]


def test_outboxes_may_be_used_while_others_fork(build: Build) -> None:
    outbox, ended = build(), threading.Event()

    def fork() -> None:
        for _ in range(20):
            if (child := os.fork()) == 0:
                os._exit(0)
            os.waitpid(child, 0)
        ended.set()

    thread = threading.Thread(target=fork)
    thread.start()
    number = 0
    while not ended.is_set():
        number += 1
        put(outbox, f"ann={number}", number)
    thread.join()
    assert deliver(outbox) == [f"ann={number}"]


# What the client makes of it


def test_what_waits_outlives_the_client_and_is_sent_by_the_next(
    path: Path, flagsync: BuildClient, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    first = flagsync(outbox=path)
    first.get_identity_flags("user_1")
    assert first.close(0.5)
    assert (first.stats().pending, first.stats().dropped) == (1, 0)
    mixpanel.recover()
    second = flagsync(outbox=path)
    second.get_identity_flags("user_2")
    assert second.flush()
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert outbox_stats(path) == Stats(accepted=2, delivered=2)


def test_a_client_that_does_not_send_waits_for_the_one_that_does(
    path: Path, flagsync: BuildClient, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    one, other = (flagsync(outbox=path, flush_interval_seconds=0.05) for _ in range(2))
    one.get_identity_flags("user_1")
    assert one.flush()
    other.get_identity_flags("user_2")
    assert other.flush()
    assert (one.stats().requests, other.stats().requests) == (2, 0)
    assert other.stats() == Stats(accepted=1, delivered=1)
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert not [message for message in logged() if "outbox" in message]


def test_a_client_that_was_never_used_leaves_no_trace_of_it(path: Path, flagsync: BuildClient) -> None:
    client = flagsync(outbox=path)
    assert client.stats() == Stats()
    assert client.close()
    assert outbox_stats(path) == Stats()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM writers").fetchone() == (0,)


def test_a_rejected_update_is_gone_from_the_file(
    path: Path, flagsync: BuildClient, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(distinct_id="bad", status=400)
    client = flagsync(outbox=path, flush_interval_seconds=60.0)
    client.get_identity_flags("bad")
    client.get_identity_flags("good")
    assert client.flush()
    assert {*mixpanel.profiles} == {"good"}
    stats: Any = client.stats()
    assert (stats.delivered, stats.rejected, stats.pending) == (1, 1, 0)
