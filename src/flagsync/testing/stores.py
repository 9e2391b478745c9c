"""The contract of a membership store, as a class of tests that every store can run; needs pytest.

Guarantee: a store that passes keeps what ``flagsync.cohorts.store`` promises, in one process. Boundary: whether a store
survives crashes, and what other processes see of it, is for its own tests.
"""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for
from pathlib import Path
from typing import Protocol

import pytest

from flagsync.cohorts import ChangeLog, CohortUpdate, MembershipReader, MembershipSink, TraitChange

PEOPLE = ("ann", "bob", "eve", "new", "old", "zoe")


class Memberships(MembershipSink, MembershipReader, Protocol):
    """A store that the webhook writes to and evaluations read."""


class MembershipStoreContract:
    """Tests that a store of your own must pass.

    Subclass them in a test module:

        from flagsync.testing.contracts import MembershipStoreContract

        class TestMyStore(MembershipStoreContract):
            def make_store(self, path):
                return MyStore(path / "cohorts")

    ``make_store`` gets an empty directory, and returns an empty store. Override the fixture ``store`` instead if a
    store must be closed. A store without a change log is not tested for one.
    """

    def make_store(self, path: Path) -> Memberships:
        """Return an empty store. To be overridden."""
        raise NotImplementedError(f"{type(self).__name__}.make_store, which gets {path}, returns no store")

    @pytest.fixture
    def store(self, tmp_path: Path) -> Memberships:
        """An empty store."""
        return self.make_store(tmp_path)

    # Differences

    def test_store_has_the_roles_of_a_sink_and_of_a_reader(self, store: Memberships) -> None:
        assert isinstance(store, MembershipSink)
        assert isinstance(store, MembershipReader)

    def test_added_members_are_in_and_removed_members_are_out(self, store: Memberships) -> None:
        assert _after(store, _add("ann", "bob"), _remove("ann")) == ["bob"]

    def test_difference_may_come_twice(self, store: Memberships) -> None:
        updates = _add("ann"), _add("ann", "bob"), _remove("ann"), _remove("ann")
        assert _after(store, *updates) == ["bob"]

    def test_first_sync_may_be_a_difference(self, store: Memberships) -> None:
        assert _after(store, _add("ann")) == ["ann"]
        assert len(_keys(store)) == 1

    def test_removing_from_an_unknown_cohort_makes_it_known(self, store: Memberships) -> None:
        assert _after(store, _remove("ann")) == []
        assert len(_keys(store)) == 1

    def test_difference_without_members_makes_the_cohort_known(self, store: Memberships) -> None:
        assert _after(store, _add()) == []
        assert len(_keys(store)) == 1

    def test_cohorts_do_not_mix(self, store: Memberships) -> None:
        _after(store, _add("ann"))
        [key] = _keys(store)
        _after(store, _add("bob", cohort="8", name="others"), _add("eve", cohort="8", name="others"))
        [other] = _keys(store) - {key}
        expected = {"ann": {key: True, other: False}, "bob": {key: False, other: True}}
        assert store.traits_of(["ann", "bob"]) == expected

    def test_each_identifier_has_an_entry_with_each_cohort(self, store: Memberships) -> None:
        assert store.traits_of(["ann", "nobody"]) == {"ann": {}, "nobody": {}}
        _after(store, _add("ann"))
        [key] = _keys(store)
        assert store.traits_of(["ann", "nobody"]) == {"ann": {key: True}, "nobody": {key: False}}

    # Whole cohorts

    def test_whole_cohort_replaces_what_was_there(self, store: Memberships) -> None:
        assert _after(store, _add("ann", "bob"), _page("s", 1, 1, "bob", "eve")) == ["bob", "eve"]

    def test_empty_whole_cohort_empties_the_cohort(self, store: Memberships) -> None:
        assert _after(store, _add("ann"), _page("s", 1, 1)) == []

    def test_nobody_leaves_before_all_pages_have_come(self, store: Memberships) -> None:
        updates = _add("old"), _page("s", 1, 3, "ann"), _page("s", 2, 3, "bob")
        assert _after(store, *updates) == ["ann", "bob", "old"]
        assert _after(store, _page("s", 3, 3)) == ["ann", "bob"]

    def test_pages_come_in_any_order(self, store: Memberships) -> None:
        pages = _page("s", 3, 3, "eve"), _page("s", 1, 3, "ann"), _page("s", 2, 3, "bob")
        assert _after(store, _add("old"), *pages) == ["ann", "bob", "eve"]

    def test_repeated_page_is_one_page(self, store: Memberships) -> None:
        repeated = _page("s", 1, 2, "ann"), _page("s", 1, 2, "ann")
        assert _after(store, _add("old"), *repeated) == ["ann", "old"]

    def test_page_that_is_repeated_after_the_end_undoes_nothing(self, store: Memberships) -> None:
        one, two = _page("s", 1, 2, "ann"), _page("s", 2, 2, "bob")
        assert _after(store, one, two, _remove("ann"), _add("eve"), one, two) == ["bob", "eve"]

    def test_abandoned_session_lets_nobody_leave(self, store: Memberships) -> None:
        updates = _add("old"), _page("a", 1, 2, "ann"), _add("bob")
        assert _after(store, *updates) == ["ann", "bob", "old"]

    def test_new_session_takes_the_place_of_an_abandoned_one(self, store: Memberships) -> None:
        pages = _page("a", 1, 2, "ann"), _page("b", 1, 2, "bob"), _page("b", 2, 2, "eve")
        assert _after(store, _add("old"), *pages) == ["bob", "eve"]

    def test_late_pages_of_an_older_session_mean_nothing(self, store: Memberships) -> None:
        pages = _page("a", 1, 2, "ann"), _page("b", 1, 1, "bob"), _page("a", 2, 2, "eve")
        assert _after(store, *pages) == ["bob"]

    def test_sessions_may_be_interleaved(self, store: Memberships) -> None:
        pages = _page("a", 1, 2, "ann"), _page("b", 1, 2, "ann", "bob"), _page("a", 2, 2, "eve")
        assert _after(store, _add("old"), *pages) == ["ann", "bob", "eve"]
        assert _after(store, _page("b", 2, 2, "zoe")) == ["ann", "bob", "zoe"]

    def test_older_session_takes_nobody_out_of_a_newer_one(self, store: Memberships) -> None:
        first = _page("a", 1, 3, "old"), _page("b", 1, 2, "ann")
        assert _after(store, *first, _page("a", 2, 3, "ann"), _page("b", 2, 2, "bob")) == ["ann", "bob"]

    def test_session_keeps_members_that_were_added_meanwhile(self, store: Memberships) -> None:
        updates = _page("s", 1, 2, "ann"), _add("new"), _page("s", 2, 2, "bob")
        assert _after(store, *updates) == ["ann", "bob", "new"]

    def test_session_leaves_out_members_that_were_removed_meanwhile(self, store: Memberships) -> None:
        assert _after(store, _page("s", 1, 2, "ann"), _remove("ann"), _page("s", 2, 2, "bob")) == ["bob"]

    def test_session_that_changes_its_number_of_pages_starts_over(self, store: Memberships) -> None:
        pages = _page("s", 1, 2, "ann"), _page("s", 2, 3, "bob"), _page("s", 3, 3, "eve")
        assert _after(store, _add("old"), *pages) == ["ann", "bob", "eve", "old"]
        assert _after(store, _page("s", 1, 3, "zoe")) == ["bob", "eve", "zoe"]

    def test_session_that_sends_another_page_instead_starts_over(self, store: Memberships) -> None:
        pages = _page("s", 1, 2, "ann"), _page("s", 1, 2, "bob"), _page("s", 2, 2, "eve")
        assert _after(store, _add("old"), *pages) == ["bob", "eve"]

    def test_session_may_start_over_after_its_end(self, store: Memberships) -> None:
        pages = _page("s", 1, 2, "ann"), _page("s", 2, 2, "bob"), _page("s", 1, 2, "eve")
        assert _after(store, *pages) == ["ann", "bob", "eve"]
        assert _after(store, _page("s", 2, 2, "bob")) == ["bob", "eve"]

    def test_whole_cohorts_without_a_session_are_one_page_each(self, store: Memberships) -> None:
        pages = _page("", 1, 1, "ann"), _page("", 1, 1, "bob"), _page("", 1, 1, "ann")
        assert _after(store, *pages) == ["ann"]

    def test_session_without_a_usable_member_replaces_nothing(self, store: Memberships) -> None:
        assert _after(store, _add("ann"), _page("s", 1, 2, skipped=9), _page("s", 2, 2, skipped=1)) == ["ann"]

    def test_session_with_one_usable_member_replaces_the_cohort(self, store: Memberships) -> None:
        assert _after(store, _add("ann"), _page("s", 1, 2, skipped=9), _page("s", 2, 2, "bob")) == ["bob"]

    # Keys and versions

    def test_renamed_cohort_keeps_its_key(self, store: Memberships) -> None:
        _after(store, _add("ann"))
        keys = _keys(store)
        assert _after(store, _add(name="VIPs of 2026")) == ["ann"]
        assert _keys(store) == keys

    def test_version_changes_with_each_change(self, store: Memberships) -> None:
        versions = [store.version()]
        for update in (_add("ann"), _page("s", 1, 1, "bob"), _remove("bob")):
            store.apply(update)
            versions.append(store.version())
        assert all(one != other for place, one in enumerate(versions) for other in versions[:place])

    def test_version_stays_while_nothing_changes(self, store: Memberships) -> None:
        _after(store, _add("ann"))
        version = store.version()
        store.traits_of(["ann"])
        assert store.version() == version

    # The change log

    @pytest.fixture
    def change_log(self, store: Memberships) -> ChangeLog:
        """The change log of the store; a store without one is not tested for it."""
        if not isinstance(store, ChangeLog):
            pytest.skip("the store keeps no change log")
        return store

    def test_log_begins_with_all_members(self, store: Memberships, change_log: ChangeLog) -> None:
        _after(store, _add("ann", "bob"))
        change_log.start_log()
        change_log.start_log()
        assert _drained(change_log) == {"ann": True, "bob": True}

    def test_log_is_empty_and_incomplete_before_it_is_started(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        _after(store, _add("ann"), _page("s", 1, 1, "bob"))
        state = change_log.log_state()
        assert (state.first, state.is_complete, change_log.pending()) == (None, False, 0)
        _start(change_log)
        state = change_log.log_state()
        assert state.is_complete
        assert state.first is not None
        assert change_log.pending() >= 1

    def test_log_has_those_who_join_and_those_who_leave(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        _start(change_log)
        _after(store, _add("ann", "bob"))
        assert _drained(change_log) == {"ann": True, "bob": True}
        _after(store, _add("bob", "eve"), _remove("ann", "old"))
        assert _drained(change_log) == {"eve": True, "ann": False}
        _after(store, _page("s", 1, 2, "eve"), _page("s", 2, 2, "zoe"))
        assert _drained(change_log) == {"zoe": True, "bob": False}

    def test_log_says_what_holds_now_and_says_it_once(self, store: Memberships, change_log: ChangeLog) -> None:
        _start(change_log)
        _after(store, _add("ann"), _remove("ann"), _add("ann", "bob"), _remove("ann"))
        claimed = [(change.identifier, change.value) for change in _claim(change_log)]
        assert claimed == [("ann", False), ("bob", True)]

    def test_log_has_changes_by_the_key_of_the_trait(self, store: Memberships, change_log: ChangeLog) -> None:
        _start(change_log)
        _after(store, _add("ann"), _add("ann", cohort="8", name="others"))
        assert {change.trait_key for change in _claim(change_log)} == _keys(store)

    def test_log_has_a_change_that_comes_while_another_one_is_written(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        _start(change_log)
        _after(store, _add("ann"))
        changes = _claim(change_log)
        _after(store, _remove("ann"))
        change_log.settle(changes, sure=True)
        assert [(change.identifier, change.value) for change in _claim(change_log)] == [("ann", False)]

    def test_log_is_unsure_while_changes_are_claimed(self, store: Memberships, change_log: ChangeLog) -> None:
        _start(change_log)
        seen = [change_log.log_state().is_unsure]
        _after(store, _add("ann"))
        changes = _claim(change_log)
        seen.append(change_log.log_state().is_unsure)
        change_log.settle(changes, sure=False)
        seen.append(change_log.log_state().is_unsure)
        _after(store, _add("bob"))
        change_log.settle(_claim(change_log), sure=True)
        seen.append(change_log.log_state().is_unsure)
        assert (_claim(change_log), change_log.log_state().is_unsure) == ([], False)
        assert seen == [False, True, True, False]

    def test_log_keeps_what_is_not_settled(self, store: Memberships, change_log: ChangeLog) -> None:
        _start(change_log)
        _after(store, _add("ann", "bob", "eve"))
        before, changes = change_log.log_state(), _claim(change_log, 2)
        assert change_log.log_state()[:2] == before[:2]
        assert changes[0].positions == (before.first,)
        change_log.settle(changes[:1], sure=True)
        assert change_log.log_state()[:2] == (changes[1].positions[0], before.last)
        assert change_log.pending() == 2
        assert [change.identifier for change in _claim(change_log)] == ["bob", "eve"]

    def test_log_gives_no_position_twice(self, store: Memberships, change_log: ChangeLog) -> None:
        _start(change_log)
        _after(store, _add("ann"))
        changes = _claim(change_log)
        change_log.settle(changes, sure=True)
        assert change_log.log_state()[:2] == (None, 0)
        _after(store, _remove("ann"))
        assert _claim(change_log)[0].positions > changes[0].positions

    def test_lease_can_be_released_and_acquired_again(self, change_log: ChangeLog) -> None:
        _start(change_log)
        assert change_log.try_acquire_lease()
        assert change_log.try_acquire_lease()
        change_log.release_lease()
        change_log.release_lease()
        assert change_log.try_acquire_lease()
        change_log.release_lease()


def _add(*members: str, cohort: str = "7", name: str = "vips") -> CohortUpdate:
    return CohortUpdate("add_members", cohort, name, members=members)


def _remove(*members: str) -> CohortUpdate:
    return CohortUpdate("remove_members", "7", "vips", members=members)


def _page(session: str, number: int, pages: int, *members: str, skipped: int = 0) -> CohortUpdate:
    return CohortUpdate("members", "7", "vips", session, number, pages, members, skipped)


def _after(store: Memberships, *updates: CohortUpdate) -> list[str]:
    """Return who is in any cohort after some calls, of those that the tests know."""
    for update in updates:
        store.apply(update)
    return [who for who, traits in sorted(store.traits_of(PEOPLE).items()) if any(traits.values())]


def _keys(store: Memberships) -> set[str]:
    return {*store.traits_of(["nobody"])["nobody"]}


def _start(change_log: ChangeLog) -> None:
    change_log.start_log()
    while change_log.sweep():
        pass


def _claim(change_log: ChangeLog, limit: int = 1000) -> list[TraitChange]:
    assert change_log.try_acquire_lease()
    return change_log.claim(limit)


def _drained(change_log: ChangeLog) -> dict[str, bool]:
    """Take all changes off the log; return what they said last."""
    written = dict[str, bool]()
    _start(change_log)
    while change_log.log_state().first is not None:
        changes = _claim(change_log)
        assert changes
        written |= {change.identifier: change.value for change in changes}
        change_log.settle(changes, sure=True)
    return written
