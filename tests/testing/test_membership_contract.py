"""The membership contract: what keeps it passes, and what breaks one rule fails."""

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from flagsync.cohorts import CohortUpdate, LogState, SQLiteStore, TraitChange
from flagsync.cohorts.sqlite.store import StoreLimits
from flagsync.testing.stores import MembershipStoreContract
from flagsync.testing.stores.support import Memberships
from tests.support.reference_store import ReferenceStore


class TestReferenceStore(MembershipStoreContract):
    def make_store(self, path: Path) -> ReferenceStore:
        return ReferenceStore()


class TestSQLiteStore(MembershipStoreContract):
    def make_store(self, path: Path) -> SQLiteStore:
        return SQLiteStore(path / "cohorts.db")


class TestSQLiteStoreThatSweepsRowByRow(MembershipStoreContract):
    def make_store(self, path: Path) -> SQLiteStore:
        return SQLiteStore(path / "cohorts.db", limits=StoreLimits(swept_rows=1))


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


class LogsNobodyWhoWasThereBefore(ReferenceStore):
    def start_log(self) -> None:
        self._log = self._log or []


class SettlesWhateverWasClaimed(ReferenceStore):
    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        super().settle(self.claim(1000), sure=sure)


class IsAlwaysSure(ReferenceStore):
    def log_state(self) -> LogState:
        return super().log_state()._replace(is_unsure=False)


BROKEN: dict[type[ReferenceStore], str] = {
    IgnoresRemovals: "added_members_are_in_and_removed_members_are_out",
    ReplacesAtTheFirstPage: "nobody_leaves_before_all_pages_have_come",
    HasOneVersion: "version_changes_with_each_change",
    LeavesOutStrangers: "each_identifier_has_an_entry_with_each_cohort",
    CallsCohortsByTheirPresentName: "renamed_cohort_keeps_its_key",
    LogsNobodyWhoWasThereBefore: "log_begins_with_all_members",
    SettlesWhateverWasClaimed: "log_keeps_what_is_not_settled",
    IsAlwaysSure: "log_is_unsure_while_changes_are_claimed",
}


def failures(make: type[ReferenceStore]) -> set[str]:
    """Run the contract by hand; return the tests that fail."""
    failed = set()
    for name, test in inspect.getmembers(MembershipStoreContract(), inspect.ismethod):
        if name.startswith("test_"):
            store: Any = make()
            try:
                test(**dict.fromkeys(inspect.signature(test).parameters, store))
            except (AssertionError, LookupError):
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
