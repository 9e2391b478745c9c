"""The membership store in a file: what it adds to the contract, which ``tests/testing`` has it pass."""

import re
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import pytest

from flagsync.cohorts import (
    ChangeLog,
    SQLiteStore,
    StoreUnavailableError,
)
from flagsync.cohorts.sqlite import schema
from flagsync.cohorts.sqlite.store import StoreLimits
from tests.support.flagsmith_server import Clock
from tests.support.updates import KEY, add, after, drain, page, remove


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cohorts.db"


def production(store: SQLiteStore) -> ChangeLog:
    """Return the log of an environment, which was started."""
    log = store.change_log("production")
    log.start()
    return log


def identifiers(log: ChangeLog, limit: int = 10) -> list[str]:
    return [change.identifier for change in log.claim(limit)]


def lock_of(path: Path) -> Path:
    [lock] = path.parent.glob("cohorts.db-*-sender")
    return lock


# Which cohorts, and what they are called


# The file


def test_lease_ends_when_its_lock_file_is_removed(path: Path) -> None:
    with SQLiteStore(path) as other, SQLiteStore(path) as one:
        first, second = production(one), production(other)
        one.apply(add("ann"))
        assert identifiers(first) == ["ann"]
        lock_of(path).unlink()
        assert identifiers(second) == ["ann"]
        assert (first.claim(1), first.try_acquire_lease()) == ([], False)


def test_lease_that_cannot_be_acquired_is_unavailable(path: Path) -> None:
    with SQLiteStore(path) as store:
        log = store.change_log("production")
        assert log.try_acquire_lease()
        lock = lock_of(path)
        lock.unlink()
        lock.mkdir()
        with pytest.raises(StoreUnavailableError, match="The lock file of the cohorts cannot be used"):
            log.try_acquire_lease()


def test_locked_file_is_unavailable_to_write_and_can_be_read(path: Path) -> None:
    limits = StoreLimits(busy_seconds=0.01)
    with (
        SQLiteStore(path, limits=limits) as store,
        closing(sqlite3.connect(path, isolation_level=None)) as other,
    ):
        store.apply(add("ann"))
        other.execute("BEGIN EXCLUSIVE")
        began = monotonic()
        with pytest.raises(StoreUnavailableError, match="another process keeps the file locked"):
            store.apply(page("s", 1, 1))
        assert monotonic() - began < 1
        assert store.traits_of(["ann"]) == {"ann": {KEY: True}}
        other.execute("ROLLBACK")
        assert after(store, add("bob")) == ["ann", "bob"]


def test_reading_does_not_wait_for_a_thread_that_writes(path: Path) -> None:
    with SQLiteStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store.apply(add("ann"))
        other.execute("BEGIN IMMEDIATE")
        writing = Thread(target=store.apply, args=(add("bob"),))
        writing.start()
        assert [*store.members("7")] == ["ann"]
        other.execute("ROLLBACK")
        writing.join()
        assert [*store.members("7")] == ["ann", "bob"]


def test_removed_file_is_made_anew(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.apply(add("ann"))
        for file in path.parent.glob("cohorts.db*"):
            file.unlink()
        assert [*store.members("7")] == []
        assert after(store, add("bob", cohort="8", name="others")) == []
        assert store.traits_of(["bob"]) == {"bob": {"mixpanel_cohort_others": True}}


def test_relative_path_means_the_same_file_after_a_change_of_directory(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(path.parent)
    with SQLiteStore(path.name) as store:
        monkeypatch.chdir("/")
        store.apply(add("ann"))
    assert path.exists()


def test_file_can_be_read_by_its_owner_only(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.apply(add("ann"))
        assert {oct(file.stat().st_mode) for file in path.parent.iterdir()} == {"0o100600"}


def test_file_of_somebody_else_is_refused_and_left_alone(path: Path) -> None:
    path.write_text("a diary")
    with pytest.raises(ValueError, match="SQLiteStore: cannot open or create a flagsync file"):
        SQLiteStore(path)
    assert path.read_text() == "a diary"


def test_file_of_an_outbox_is_refused(path: Path, flagsync: Callable[..., Any]) -> None:
    flagsync(outbox=path)
    with pytest.raises(ValueError, match="belongs to another application"):
        SQLiteStore(path)


# The end of a store


def test_collected_store_releases_its_file(path: Path) -> None:
    store = SQLiteStore(path)
    store.apply(add("ann"))
    files = store._file._connections.get()
    del store
    assert [file.is_connected for file in files] == [False, False]


def test_collected_log_releases_its_lease(path: Path) -> None:
    with SQLiteStore(path) as store:
        logs = [store.change_log("production") for _ in range(2)]
        assert (logs[0].try_acquire_lease(), logs[1].try_acquire_lease()) == (True, False)
        del logs[0]
        assert logs[0].try_acquire_lease()
        logs.append(store.change_log("never used"))
        del logs


def test_log_of_a_file_that_was_replaced_is_not_started(path: Path) -> None:
    with SQLiteStore(path) as store:
        log = production(store)
        after(store, add("ann"))
        assert log.try_acquire_lease()
        changes = log.claim(10)
        for file in path.parent.glob("cohorts.db*"):
            file.unlink()
        log.settle(changes)
        log.postpone(changes, 0.0)
        assert (log.state().is_complete, log.pending()) == (False, 0)
        after(store, add("bob"))
        assert drain(log) == [("bob", True)]


def test_postponed_change_is_due_after_its_time_also_if_the_clock_is_put_back(path: Path) -> None:
    clock = Clock()
    with SQLiteStore(path, limits=StoreLimits(clock=clock)) as store:
        log = production(store)
        after(store, add("ann"))
        assert log.try_acquire_lease()
        for seconds, passed in ((60.0, 59.9), (60.0, 60.0), (3600.0, 3599.9), (3600.0, -86_400.0)):
            log.postpone(log.claim(10), seconds)
            clock.sleep(passed)
            is_due = log.state().due_in_seconds == 0
            assert (is_due, len(log.claim(10))) == (passed in (60.0, -86_400.0), passed in (60.0, -86_400.0))
            clock.sleep(1.0)


def test_log_looks_at_some_members_at_a_time(path: Path) -> None:
    with SQLiteStore(path, limits=StoreLimits(swept_rows=1)) as store:
        after(store, add(*"abcdef"), remove("a"))
        log = production(store)
        assert log.try_acquire_lease()
        assert identifiers(log, 1) == ["b"]
        with closing(sqlite3.connect(path)) as file:
            assert file.execute("SELECT count(*) FROM unsettled").fetchone() == (2,)
        assert dict(drain(log, limit=1)) == dict.fromkeys("bcdef", True)


def test_statements_look_for_what_they_need_in_an_index(path: Path) -> None:
    queries = [query for query in vars(schema).values() if isinstance(query, str)]
    with SQLiteStore(path), closing(sqlite3.connect(path)) as file:
        for query in queries:
            if query.startswith(("SELECT", "INSERT", "UPDATE", "DELETE")):
                values = dict.fromkeys(re.findall(r":(\w+)", query), 0) or [0] * query.count("?")
                plan = file.execute(f"EXPLAIN QUERY PLAN {query}", values).fetchall()
                assert [step for *_, step in plan if re.match("SCAN (members|unsettled|changes)", step)] == []


def test_environment_that_nobody_writes_to_any_more_costs_nothing(path: Path) -> None:
    with SQLiteStore(path) as store:
        abandoned, log = production(store), store.change_log("staging")
        for round_ in range(10):
            after(store, add(*"abcdef") if round_ % 2 else remove(*"abcdef"))
            drain(log)
        assert abandoned.pending() == 6
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM unsettled").fetchone() == (0,)


def test_collected_store_waits_for_no_lock(path: Path) -> None:
    store = SQLiteStore(path)
    store.apply(add("ann"))
    is_held, may_end = threading.Event(), threading.Event()
    file = store._file._connections.get().writing

    def hold() -> None:
        with file._lock:
            is_held.set()
            may_end.wait()

    thread = Thread(target=hold)
    thread.start()
    is_held.wait()
    del store
    assert not file.is_connected
    may_end.set()
    thread.join()


def test_collected_store_in_a_process_that_never_used_it_does_nothing(path: Path) -> None:
    store = SQLiteStore(path)
    store.close()
    del store
    assert path.exists()
