"""The membership contract: what keeps it passes, and what breaks one rule fails."""

import inspect
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flagsync.cohorts import CohortUpdate, PostgresStore, SQLiteStore, TraitChange
from flagsync.cohorts.postgres.store import StoreLimits as PostgresLimits
from flagsync.cohorts.sqlite.store import StoreLimits
from flagsync.testing.stores import MembershipStoreContract
from flagsync.testing.stores.support import Memberships
from tests.support.pooler import Pooler
from tests.support.postgres import PostgresServer, schema_of
from tests.support.reference_store import ReferenceLog, ReferenceStore


class TestReferenceStore(MembershipStoreContract):
    def make_store(self, path: Path) -> ReferenceStore:
        return ReferenceStore()


class TestSQLiteStore(MembershipStoreContract):
    def make_store(self, path: Path) -> SQLiteStore:
        return SQLiteStore(path / "cohorts.db")


class TestSQLiteStoreThatSweepsRowByRow(MembershipStoreContract):
    def make_store(self, path: Path) -> SQLiteStore:
        return SQLiteStore(path / "cohorts.db", limits=StoreLimits(swept_rows=1))


class PostgresStores(MembershipStoreContract):
    """Stores in a server, each in a schema of its own, which are closed after a test."""

    limits = PostgresLimits()

    @pytest.fixture
    def store(self, postgres: PostgresServer, tmp_path: Path) -> Iterator[PostgresStore]:
        with PostgresStore(postgres.url(), schema=schema_of(tmp_path), limits=self.limits) as store:
            yield store


class TestPostgresStore(PostgresStores):
    pass


class TestPostgresStoreThatSweepsRowByRow(PostgresStores):
    limits = PostgresLimits(swept_rows=1)


class TestPostgresStoreBehindAPooler(MembershipStoreContract):
    @pytest.fixture
    def store(self, postgres: PostgresServer, tmp_path: Path) -> Iterator[PostgresStore]:
        with (
            closing(Pooler(postgres.url())) as pooler,
            PostgresStore(pooler, schema=schema_of(tmp_path)) as store,
        ):
            yield store


class OnlyMemberships:
    """A store with no change log."""

    def __init__(self) -> None:
        self._store = ReferenceStore()

    def apply(self, update: CohortUpdate) -> None:
        self._store.apply(update)

    def version(self) -> object:
        return self._store.version()

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        return self._store.traits_of(identifiers)


class TestStoreWithoutChangeLog(MembershipStoreContract):
    def make_store(self, path: Path) -> OnlyMemberships:
        return OnlyMemberships()


class IgnoresRemovals(ReferenceStore):
    def apply(self, update: CohortUpdate) -> None:
        if update.action != "remove_members":
            super().apply(update)


class ReplacesAtTheFirstPage(ReferenceStore):
    def apply(self, update: CohortUpdate) -> None:
        super().apply(CohortUpdate(update.action, update.cohort_id, update.cohort_name, members=update.members))


class HasOneVersion(ReferenceStore):
    def version(self) -> int:
        return 1


class LeavesOutStrangers(ReferenceStore):
    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        return {who: traits for who, traits in super().traits_of(identifiers).items() if any(traits.values())}


class CallsCohortsByTheirPresentName(ReferenceStore):
    def apply(self, update: CohortUpdate) -> None:
        super().apply(update)
        self._keys[update.cohort_id] = update.cohort_name


class LogThatBeginsEmpty(ReferenceLog):
    def start(self) -> None:
        super().start()
        self._cursor = self._store._position


class LogThatForgetsWhoLeft(ReferenceLog):
    def restart(self) -> None:
        self._began, self._cursor = self._store._position, 0


class LogThatSettlesWhateverWasClaimed(ReferenceLog):
    def settle(self, changes: Collection[TraitChange]) -> None:
        super().settle(self.claim(1000))


class LogThatIsAlwaysSure(ReferenceLog):
    def claim(self, limit: int) -> list[TraitChange]:
        return [change._replace(is_unsure=False) for change in super().claim(limit)]


class LogThatNeverWaits(ReferenceLog):
    def postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        super().postpone(changes, 0.0)


class LogThatMixesWhatWasTried(ReferenceLog):
    def postpone(self, changes: Collection[TraitChange], seconds: float) -> None:
        super().postpone([change._replace(tries=0) for change in changes], seconds)


class LogThatTriesAgainFirst(ReferenceLog):
    def claim(self, limit: int) -> list[TraitChange]:
        self._was_tried = False
        return super().claim(limit)


class HasOneLogForAll(ReferenceStore):
    def change_log(self, environment: str) -> ReferenceLog:
        return super().change_log("all")


def with_log(kind: type[ReferenceLog]) -> type[ReferenceStore]:
    """Return stores with logs of a kind."""

    class Store(ReferenceStore):
        def change_log(self, environment: str) -> ReferenceLog:
            return self._logs.setdefault(environment, kind(self))

    return Store


BROKEN: dict[type[ReferenceStore], str] = {
    IgnoresRemovals: "added_members_are_in_and_removed_members_are_out",
    ReplacesAtTheFirstPage: "nobody_leaves_before_all_pages_have_come",
    HasOneVersion: "version_changes_with_each_change",
    LeavesOutStrangers: "each_identifier_has_an_entry_with_each_cohort",
    CallsCohortsByTheirPresentName: "renamed_cohort_keeps_its_key",
    HasOneLogForAll: "each_environment_has_a_log_with_all_members",
    with_log(LogThatBeginsEmpty): "log_begins_with_all_members",
    with_log(LogThatForgetsWhoLeft): "restarted_log_has_present_and_former_members",
    with_log(LogThatSettlesWhateverWasClaimed): "log_keeps_what_is_not_settled",
    with_log(LogThatIsAlwaysSure): "claimed_change_is_unsure_until_it_is_settled",
    with_log(LogThatNeverWaits): "postponed_change_waits",
    with_log(LogThatMixesWhatWasTried): "changes_that_were_tried_come_alone_and_in_turn_with_others",
    with_log(LogThatTriesAgainFirst): "change_that_is_tried_again_and_again_lets_later_ones_be_claimed",
}


def failures(make: type[ReferenceStore]) -> set[str]:
    """Run the contract by hand; return the tests that fail."""
    failed = set()
    for name, test in inspect.getmembers(MembershipStoreContract(), inspect.ismethod):
        if name.startswith("test_"):
            store: Any = make()
            try:
                test(**dict.fromkeys(inspect.signature(test).parameters, store))
            except (AssertionError, LookupError, ValueError):
                failed.add(name.removeprefix("test_"))
    return failed


def test_contract_passes_for_the_reference_when_it_is_run_by_hand() -> None:
    assert failures(ReferenceStore) == set()


@pytest.mark.parametrize(("broken", "test"), BROKEN.items())
def test_contract_fails_for_a_store_that_breaks_a_rule(broken: type[ReferenceStore], test: str) -> None:
    assert test in failures(broken)


def test_contract_names_the_method_that_must_be_overridden(tmp_path: Path) -> None:
    with pytest.raises(NotImplementedError, match=r"MembershipStoreContract\.make_store"):
        MembershipStoreContract().make_store(tmp_path)


def test_contract_takes_any_store_with_three_methods() -> None:
    store: Memberships = OnlyMemberships()
    assert store.traits_of(["ann"]) == {"ann": {}}
