"""The list of memberships that changed."""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for
import pytest

from flagsync.cohorts import ChangeLog
from flagsync.testing.stores.support import (
    Memberships,
    add,
    claim,
    drained,
    keys_of,
    members_after,
    page,
    remove,
    start,
)


class ChangeLogContract:
    """What ``ChangeLog`` says; a store without one is not tested for it."""

    # The change log

    @pytest.fixture
    def change_log(self, store: Memberships) -> ChangeLog:
        """The change log of the store; a store without one is not tested for it."""
        if not isinstance(store, ChangeLog):
            pytest.skip("the store keeps no change log")
        return store

    def test_log_begins_with_all_members(self, store: Memberships, change_log: ChangeLog) -> None:
        members_after(store, add("ann", "bob"))
        change_log.start_log()
        change_log.start_log()
        assert drained(change_log) == {"ann": True, "bob": True}

    def test_log_is_empty_and_incomplete_before_it_is_started(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        members_after(store, add("ann"), page("s", 1, 1, "bob"))
        state = change_log.log_state()
        assert (state.first, state.is_complete, change_log.pending()) == (None, False, 0)
        start(change_log)
        state = change_log.log_state()
        assert state.is_complete
        assert state.first is not None
        assert change_log.pending() >= 1

    def test_log_has_those_who_join_and_those_who_leave(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        start(change_log)
        members_after(store, add("ann", "bob"))
        assert drained(change_log) == {"ann": True, "bob": True}
        members_after(store, add("bob", "eve"), remove("ann", "old"))
        assert drained(change_log) == {"eve": True, "ann": False}
        members_after(store, page("s", 1, 2, "eve"), page("s", 2, 2, "zoe"))
        assert drained(change_log) == {"zoe": True, "bob": False}

    def test_log_says_what_holds_now_and_says_it_once(self, store: Memberships, change_log: ChangeLog) -> None:
        start(change_log)
        members_after(store, add("ann"), remove("ann"), add("ann", "bob"), remove("ann"))
        claimed = [(change.identifier, change.value) for change in claim(change_log)]
        assert claimed == [("ann", False), ("bob", True)]

    def test_log_has_changes_by_the_key_of_the_trait(self, store: Memberships, change_log: ChangeLog) -> None:
        start(change_log)
        members_after(store, add("ann"), add("ann", cohort="8", name="others"))
        assert {change.trait_key for change in claim(change_log)} == keys_of(store)

    def test_log_has_a_change_that_comes_while_another_one_is_written(
        self, store: Memberships, change_log: ChangeLog
    ) -> None:
        start(change_log)
        members_after(store, add("ann"))
        changes = claim(change_log)
        members_after(store, remove("ann"))
        change_log.settle(changes, sure=True)
        assert [(change.identifier, change.value) for change in claim(change_log)] == [("ann", False)]

    def test_log_is_unsure_while_changes_are_claimed(self, store: Memberships, change_log: ChangeLog) -> None:
        start(change_log)
        seen = [change_log.log_state().is_unsure]
        members_after(store, add("ann"))
        changes = claim(change_log)
        seen.append(change_log.log_state().is_unsure)
        change_log.settle(changes, sure=False)
        seen.append(change_log.log_state().is_unsure)
        members_after(store, add("bob"))
        change_log.settle(claim(change_log), sure=True)
        seen.append(change_log.log_state().is_unsure)
        assert (claim(change_log), change_log.log_state().is_unsure) == ([], False)
        assert seen == [False, True, True, False]

    def test_log_keeps_what_is_not_settled(self, store: Memberships, change_log: ChangeLog) -> None:
        start(change_log)
        members_after(store, add("ann", "bob", "eve"))
        before, changes = change_log.log_state(), claim(change_log, 2)
        assert change_log.log_state()[:2] == before[:2]
        assert changes[0].positions == (before.first,)
        change_log.settle(changes[:1], sure=True)
        assert change_log.log_state()[:2] == (changes[1].positions[0], before.last)
        assert change_log.pending() == 2
        assert [change.identifier for change in claim(change_log)] == ["bob", "eve"]

    def test_log_gives_no_position_twice(self, store: Memberships, change_log: ChangeLog) -> None:
        start(change_log)
        members_after(store, add("ann"))
        changes = claim(change_log)
        change_log.settle(changes, sure=True)
        assert change_log.log_state()[:2] == (None, 0)
        members_after(store, remove("ann"))
        assert claim(change_log)[0].positions > changes[0].positions

    def test_lease_can_be_released_and_acquired_again(self, change_log: ChangeLog) -> None:
        start(change_log)
        assert change_log.try_acquire_lease()
        assert change_log.try_acquire_lease()
        change_log.release_lease()
        change_log.release_lease()
        assert change_log.try_acquire_lease()
        change_log.release_lease()
