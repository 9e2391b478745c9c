"""Sessions against the reference, at random; what is swept and what is remembered of them."""

import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from flagsync.cohorts import CohortUpdate, PostgresStore, SQLiteStore
from flagsync.cohorts.postgres.store import StoreLimits as PostgresLimits
from flagsync.cohorts.sessions import STARTS_OVER
from flagsync.cohorts.sqlite.store import StoreLimits
from tests.support.flagsmith_server import Clock
from tests.support.postgres import PostgresServer, schema_of
from tests.support.reference_store import ReferenceStore
from tests.support.updates import add, after, drain, page

IDENTIFIERS = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True).map(tuple)


class Stores(RuleBasedStateMachine):
    """The same calls for both stores; ``written`` is what an environment of Flagsmith has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.directory, self.clock = TemporaryDirectory(), Clock()
        self.reference, self.stored = ReferenceStore(), self.open()
        self.log = self.stored.change_log("production")
        self.written: dict[tuple[str, str], bool] = {}

    def open(self) -> SQLiteStore | PostgresStore:
        """Open the store that is compared with the reference."""
        limits = StoreLimits(swept_rows=1, clock=self.clock)
        return SQLiteStore(Path(self.directory.name) / "cohorts.db", limits=limits)

    def pass_time(self) -> None:
        self.clock.sleep(60.0)

    @rule(
        action=st.sampled_from(["add_members", "remove_members"]),
        cohort=st.sampled_from("12"),
        members=IDENTIFIERS,
    )
    def difference(self, action: Any, cohort: str, members: tuple[str, ...]) -> None:
        self.apply(CohortUpdate(action, cohort, cohort, members=members))

    @rule(
        session=st.sampled_from(["", "s", "t", "u"]),
        place=st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]),
        members=IDENTIFIERS,
        skipped=st.sampled_from([0, 0, 0, 1]),
        cohort=st.sampled_from("12"),
    )
    def whole(
        self, session: str, place: tuple[int, int], members: tuple[str, ...], skipped: int, cohort: str
    ) -> None:
        number, pages = place if session else (1, 1)
        self.apply(CohortUpdate("members", cohort, cohort, session, number, pages, members, skipped))

    def apply(self, update: CohortUpdate) -> None:
        self.reference.apply(update)
        self.stored.apply(update)

    @rule()
    def start(self) -> None:
        self.log.start()

    @rule()
    def resync(self) -> None:
        self.log.restart()

    @rule()
    def sweep(self) -> None:
        self.log.sweep()

    @rule(limit=st.integers(1, 4), settled=st.integers(0, 4), seconds=st.sampled_from([None, 0.0, 60.0]))
    def write(self, limit: int, settled: int, seconds: float | None) -> None:
        assert self.log.try_acquire_lease()
        changes = self.log.claim(limit)
        self.written.update({(change.identifier, change.trait_key): change.value for change in changes})
        self.log.settle(changes[:settled])
        if seconds is not None:
            self.log.postpone(changes[settled:], seconds)

    @rule()
    def time_passes(self) -> None:
        self.pass_time()

    @rule()
    def reopen(self) -> None:
        self.log.release_lease()
        self.stored.close()
        self.stored = self.open()
        self.log = self.stored.change_log("production")

    @invariant()
    def same_members(self) -> None:
        for cohort in "12":
            assert [*self.stored.members(cohort)] == [*self.reference.members(cohort)]
        assert self.stored.traits_of("abcdef") == self.reference.traits_of("abcdef")

    def teardown(self) -> None:
        while not self.log.state().is_complete or self.log.state().first is not None:
            self.start()
            self.sweep()
            self.write(3, 3, None)
            self.pass_time()
        told = Counter(key for key, value in self.written.items() if value)
        other = drain(self.stored.change_log("staging"))
        in_cohorts = Counter(
            (identifier, cohort.trait_key)
            for cohort in self.reference.cohorts()
            for identifier in self.reference.members(cohort.id)
        )
        self.stored.close()
        self.directory.cleanup()
        assert told == in_cohorts
        assert Counter(who for who, value in other if value) == Counter(who for who, _ in in_cohorts)


class Schemas(Stores):
    """A schema in a server, which the tests share, takes the place of the file."""

    server: PostgresServer

    def open(self) -> PostgresStore:
        schema, limits = schema_of(Path(self.directory.name)), PostgresLimits(swept_rows=1)
        return PostgresStore(self.server.url(), schema=schema, limits=limits)

    def apply(self, update: CohortUpdate) -> None:
        self.reference.apply(update)
        with self.open() as other:  # a host that does not write traits
            other.apply(update)

    def pass_time(self) -> None:
        unsettled = f"{schema_of(Path(self.directory.name))}.cohort_unsettled"
        self.server.run(f"UPDATE {unsettled} SET due = greatest(0, due - 60)")


SETTINGS = settings(max_examples=40, stateful_step_count=40, deadline=None)


def test_sessions_hold_what_the_reference_holds_whatever_comes() -> None:
    run_state_machine_as_test(Stores, settings=SETTINGS)


def test_sessions_of_two_hosts_hold_what_the_reference_holds_whatever_comes(postgres: PostgresServer) -> None:
    Schemas.server = postgres
    run_state_machine_as_test(Schemas, settings=settings(SETTINGS, max_examples=8))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cohorts.db"


def test_worked_example_of_the_docstring_holds(path: Path) -> None:
    def rows() -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as file:
            query = "SELECT identifier, seen, floor FROM members JOIN cohorts ON number = cohort ORDER BY 1"
            return file.execute(query).fetchall()

    with SQLiteStore(path, limits=StoreLimits(swept_rows=0)) as store:
        assert after(store, add("ann", "bob")) == ["ann", "bob"]
        assert rows() == [("ann", 0, 0), ("bob", 0, 0)]
        assert after(store, page("s", 1, 2, "bob")) == ["ann", "bob"]
        assert rows() == [("ann", 0, 0), ("bob", 1, 0)]
        assert after(store, add("eve")) == ["ann", "bob", "eve"]
        assert rows() == [("ann", 0, 0), ("bob", 1, 0), ("eve", 1, 0)]
        assert after(store, page("s", 2, 2)) == ["bob", "eve"]
        while store.change_log("production").sweep():
            pass
        assert rows() == [("ann", -1, 1), ("bob", 1, 1), ("eve", 1, 1)]


@pytest.mark.parametrize("rows", [1, 2, 5, 6])
def test_sweep_logs_those_who_left_some_at_a_time(path: Path, rows: int) -> None:
    with SQLiteStore(path, limits=StoreLimits(swept_rows=rows)) as store:
        log = store.change_log("production")
        log.start()
        store.apply(add(*"abcdef"))
        assert dict(drain(log)) == dict.fromkeys("abcdef", True)
        store.apply(page("s", 1, 1, "c"))
        assert [*store.members("7")] == ["c"]
        assert dict(drain(log)) == dict.fromkeys("abdef", False)
        assert [*store.members("7")] == ["c"]


def test_swept_member_who_joins_again_is_written_again(path: Path) -> None:
    with SQLiteStore(path, limits=StoreLimits(swept_rows=1)) as store:
        log = store.change_log("production")
        log.start()
        after(store, add("ann", "bob", "eve"), page("s", 1, 1))  # eve is not swept before she is back
        assert log.try_acquire_lease()
        changes = log.claim(10)
        assert {change.identifier: change.value for change in changes} == dict.fromkeys(
            ("ann", "bob", "eve"), False
        )
        log.settle(changes)
        after(store, add("eve"))
        assert dict(drain(log))["eve"] is True
        log.release_lease()


def test_sessions_beyond_the_bound_are_forgotten(path: Path) -> None:
    with SQLiteStore(path, limits=StoreLimits(kept_sessions=3)) as store:
        for number in range(10):
            after(store, page(f"abandoned-{number}", 1, 2, "ann"), page(f"whole-{number}", 1, 1, "bob"))
    with closing(sqlite3.connect(path)) as file:
        sessions = [name for [name] in file.execute("SELECT id FROM sessions ORDER BY number")]
        assert sessions == ["whole-8", "abandoned-9", "whole-9"]
        assert file.execute("SELECT count(*) FROM pages").fetchone() == (1,)


def test_session_that_starts_over_is_logged(path: Path, logged: Callable[[], list[str]]) -> None:
    with SQLiteStore(path) as store:
        after(store, page("s", 1, 2, "ann"), page("s", 1, 2, "bob"))
    assert logged() == [STARTS_OVER]
