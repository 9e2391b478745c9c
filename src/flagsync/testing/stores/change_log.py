"""The log of memberships that have changed."""

# ruff: noqa: D102, S101, PLR2004 - it consists of tests, whose names say what they are for
from math import inf

import pytest

from flagsync.cohorts import ChangeLogs
from flagsync.testing.stores.support import (
    Memberships,
    add,
    claim,
    drained,
    keys_of,
    members_after,
    page,
    remove,
    started,
)


class ChangeLogContract:
    """What ``ChangeLogs`` and ``ChangeLog`` say; a store without logs is not tested for it."""

    # The change log

    @pytest.fixture
    def change_logs(self, store: Memberships) -> ChangeLogs:
        """The store, which keeps change logs; one that does not is not tested for it."""
        if not isinstance(store, ChangeLogs):
            pytest.skip("the store keeps no change log")
        return store

    def test_log_begins_with_all_members(self, store: Memberships, change_logs: ChangeLogs) -> None:
        members_after(store, add("ann", "bob", "old"), remove("old"))
        log = started(change_logs)
        assert drained(log) == {"ann": True, "bob": True}
        log.start()
        assert drained(log) == {}

    def test_log_is_empty_and_incomplete_before_it_is_started(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        members_after(store, add("ann"), page("s", 1, 1, "bob"))
        log = change_logs.change_log("production")
        state = log.state()
        assert (state.first, state.is_complete, state.due_in_seconds, log.pending()) == (None, False, inf, 0)
        assert claim(log) == []
        state = started(change_logs).state()
        assert (state.first is None, state.is_complete, state.due_in_seconds) == (False, True, 0.0)
        assert log.pending() >= 1

    def test_log_has_those_who_join_and_those_who_leave(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann", "bob"))
        assert drained(log) == {"ann": True, "bob": True}
        members_after(store, add("bob", "eve"), remove("ann", "old"))
        assert drained(log) == {"eve": True, "ann": False}
        members_after(store, page("s", 1, 2, "eve"), page("s", 2, 2, "zoe"))
        assert drained(log) == {"zoe": True, "bob": False}
        members_after(store, add("ann"))
        assert drained(log) == {"ann": True}

    def test_log_says_what_holds_now_and_says_it_once(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"), remove("ann"), add("ann", "bob"), remove("ann"))
        claimed = {change.identifier: change.value for change in claim(log)}
        assert claimed == {"ann": False, "bob": True}
        assert log.pending() == 2

    def test_log_has_changes_by_the_key_of_the_trait(self, store: Memberships, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        members_after(store, add("ann"), add("ann", cohort="8", name="others"))
        assert {change.trait_key for change in claim(log)} == keys_of(store)

    def test_log_has_a_change_that_comes_while_another_one_is_written(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        changes = claim(log)
        members_after(store, remove("ann"))
        log.settle(changes)
        assert [(change.identifier, change.value) for change in claim(log)] == [("ann", False)]

    def test_log_keeps_what_is_not_settled(self, store: Memberships, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        members_after(store, add("ann", "bob", "eve"))
        before, changes = log.state(), claim(log, 2)
        assert log.state()[:2] == before[:2]
        assert changes[0].position == before.first
        log.settle(changes[:1])
        assert log.state()[:2] == (changes[1].position, before.last)
        assert log.pending() == 2
        assert [change.identifier for change in claim(log)] == ["bob", "eve"]

    def test_log_gives_no_position_twice(self, store: Memberships, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        changes = claim(log)
        log.settle(changes)
        assert log.state().first is None
        members_after(store, remove("ann"))
        assert claim(log)[0].position > changes[0].position

    def test_settling_a_change_twice_leaves_a_later_one(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        changes = claim(log)
        members_after(store, remove("ann"))
        claim(log)
        log.settle(changes)
        assert [change.value for change in claim(log)] == [False]

    # Environments

    def test_each_environment_has_a_log_with_all_members(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        members_after(store, add("ann"))
        assert drained(started(change_logs)) == {"ann": True}
        members_after(store, add("bob"), remove("ann"))
        assert drained(started(change_logs, "staging")) == {"bob": True}
        assert drained(started(change_logs)) == {"ann": False, "bob": True}

    def test_each_environment_has_a_lease(self, change_logs: ChangeLogs) -> None:
        logs = started(change_logs), started(change_logs, "staging")
        assert [log.try_acquire_lease() for log in logs] == [True, True]
        for log in logs:
            log.release_lease()

    def test_restarted_log_has_present_and_former_members(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        members_after(store, add("ann", "old", "zoe"), remove("old"))
        log, other = started(change_logs), started(change_logs, "staging")
        assert drained(log) == drained(other) == {"ann": True, "zoe": True}
        members_after(store, page("s", 1, 1, "ann"))
        assert drained(log) == {"zoe": False}
        log.restart()
        assert drained(log) == {"ann": True, "old": False, "zoe": False}
        assert drained(other) == {"zoe": False}

    def test_log_may_begin_with_a_restart(self, store: Memberships, change_logs: ChangeLogs) -> None:
        members_after(store, add("ann", "old"), remove("old"))
        change_logs.change_log("production").restart()
        assert drained(started(change_logs)) == {"ann": True, "old": False}

    def test_restart_while_changes_are_claimed_repeats_them(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann", "bob"))
        changes = claim(log)
        log.restart()
        log.settle(changes)
        assert drained(log) == {"ann": True, "bob": True}

    # What is not sure

    def test_claimed_change_is_unsure_until_it_is_settled(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        seen = [[change.is_unsure for change in claim(log)] for _ in range(2)]
        log.settle(claim(log))
        members_after(store, remove("ann"))
        seen.append([change.is_unsure for change in claim(log)])
        assert seen == [[False], [True], [False]]

    def test_postponed_change_is_as_it_was_given(self, store: Memberships, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        changes = claim(log)
        for given in (changes[0], changes[0]._replace(is_unsure=True, tries=7)):
            log.postpone([given], 0.0)
            assert claim(log) == [given]

    def test_postponed_change_waits(self, store: Memberships, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        members_after(store, add("ann", "bob"))
        changes = claim(log)
        log.postpone(changes[:1], 3600.0)
        assert [change.identifier for change in claim(log)] == ["bob"]
        log.settle(changes[1:])
        state = log.state()
        assert (state.first, log.pending(), claim(log)) == (changes[0].position, 1, [])
        assert 3500 < state.due_in_seconds <= 3600
        log.postpone(changes[:1], 0.0)
        assert claim(log) == changes[:1]

    def test_later_change_of_a_postponed_one_does_not_wait_and_is_unsure(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        log.postpone(claim(log), 3600.0)
        members_after(store, remove("ann"))
        claimed = [(change.value, change.is_unsure) for change in claim(log)]
        assert (claimed, log.pending()) == ([(False, True)], 1)

    def test_changes_that_were_tried_come_alone_and_in_turn_with_others(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann", "bob", "eve"))
        changes = claim(log)
        log.postpone([change._replace(tries=1) for change in changes[1:]], 0.0)
        claimed = list[str]()
        for _ in range(3):
            [change] = claim(log)
            claimed.append(change.identifier)
            log.settle([change])
        assert sorted(claimed) == ["ann", "bob", "eve"]
        assert "ann" in claimed[:2]

    def test_change_that_is_tried_again_and_again_lets_later_ones_be_claimed(
        self, store: Memberships, change_logs: ChangeLogs
    ) -> None:
        log = started(change_logs)
        members_after(store, add("ann"))
        for _ in range(3):
            log.postpone([change._replace(tries=1) for change in claim(log)], 0.0)
        members_after(store, add("bob"))
        claims = [claim(log), claim(log)]
        assert sorted([change.identifier for change in one] for one in claims) == [["ann"], ["bob"]]

    # The lease

    def test_lease_says_how_long_it_lasts(self, change_logs: ChangeLogs) -> None:
        assert 0.0 <= started(change_logs).lease_seconds < inf

    def test_lease_can_be_released_and_acquired_again(self, change_logs: ChangeLogs) -> None:
        log = started(change_logs)
        assert log.try_acquire_lease()
        assert log.try_acquire_lease()
        log.release_lease()
        log.release_lease()
        assert log.try_acquire_lease()
        log.release_lease()
