"""Who is in which cohort after which calls of the webhook."""

# ruff: noqa: D102, S101 - it consists of tests, whose names say what they are for

from flagsync.cohorts import MembershipReader, MembershipSink
from flagsync.testing.stores.support import (
    Memberships,
    add,
    keys_of,
    members_after,
    page,
    remove,
)


class MembershipContract:
    """What ``MembershipSink`` and ``MembershipReader`` say."""

    # Differences

    def test_store_has_the_roles_of_a_sink_and_of_a_reader(self, store: Memberships) -> None:
        assert isinstance(store, MembershipSink)
        assert isinstance(store, MembershipReader)

    def test_added_members_are_in_and_removed_members_are_out(self, store: Memberships) -> None:
        assert members_after(store, add("ann", "bob"), remove("ann")) == ["bob"]

    def test_difference_may_come_twice(self, store: Memberships) -> None:
        updates = add("ann"), add("ann", "bob"), remove("ann"), remove("ann")
        assert members_after(store, *updates) == ["bob"]

    def test_first_sync_may_be_a_difference(self, store: Memberships) -> None:
        assert members_after(store, add("ann")) == ["ann"]
        assert len(keys_of(store)) == 1

    def test_removing_from_an_unknown_cohort_makes_it_known(self, store: Memberships) -> None:
        assert members_after(store, remove("ann")) == []
        assert len(keys_of(store)) == 1

    def test_difference_without_members_makes_the_cohort_known(self, store: Memberships) -> None:
        assert members_after(store, add()) == []
        assert len(keys_of(store)) == 1

    def test_cohorts_do_not_mix(self, store: Memberships) -> None:
        members_after(store, add("ann"))
        [key] = keys_of(store)
        members_after(store, add("bob", cohort="8", name="others"), add("eve", cohort="8", name="others"))
        [other] = keys_of(store) - {key}
        expected = {"ann": {key: True, other: False}, "bob": {key: False, other: True}}
        assert store.traits_of(["ann", "bob"]) == expected

    def test_each_identifier_has_an_entry_with_each_cohort(self, store: Memberships) -> None:
        assert store.traits_of(["ann", "nobody"]) == {"ann": {}, "nobody": {}}
        members_after(store, add("ann"))
        [key] = keys_of(store)
        assert store.traits_of(["ann", "nobody"]) == {"ann": {key: True}, "nobody": {key: False}}

    # Whole cohorts

    def test_whole_cohort_replaces_what_was_there(self, store: Memberships) -> None:
        assert members_after(store, add("ann", "bob"), page("s", 1, 1, "bob", "eve")) == ["bob", "eve"]

    def test_empty_whole_cohort_empties_the_cohort(self, store: Memberships) -> None:
        assert members_after(store, add("ann"), page("s", 1, 1)) == []

    def test_nobody_leaves_before_all_pages_have_come(self, store: Memberships) -> None:
        updates = add("old"), page("s", 1, 3, "ann"), page("s", 2, 3, "bob")
        assert members_after(store, *updates) == ["ann", "bob", "old"]
        assert members_after(store, page("s", 3, 3)) == ["ann", "bob"]

    def test_pages_come_in_any_order(self, store: Memberships) -> None:
        pages = page("s", 3, 3, "eve"), page("s", 1, 3, "ann"), page("s", 2, 3, "bob")
        assert members_after(store, add("old"), *pages) == ["ann", "bob", "eve"]

    def test_repeated_page_is_one_page(self, store: Memberships) -> None:
        repeated = page("s", 1, 2, "ann"), page("s", 1, 2, "ann")
        assert members_after(store, add("old"), *repeated) == ["ann", "old"]

    def test_page_that_is_repeated_after_the_end_undoes_nothing(self, store: Memberships) -> None:
        one, two = page("s", 1, 2, "ann"), page("s", 2, 2, "bob")
        assert members_after(store, one, two, remove("ann"), add("eve"), one, two) == ["bob", "eve"]

    def test_abandoned_session_lets_nobody_leave(self, store: Memberships) -> None:
        updates = add("old"), page("a", 1, 2, "ann"), add("bob")
        assert members_after(store, *updates) == ["ann", "bob", "old"]

    def test_new_session_takes_the_place_of_an_abandoned_one(self, store: Memberships) -> None:
        pages = page("a", 1, 2, "ann"), page("b", 1, 2, "bob"), page("b", 2, 2, "eve")
        assert members_after(store, add("old"), *pages) == ["bob", "eve"]

    def test_late_pages_of_an_older_session_mean_nothing(self, store: Memberships) -> None:
        pages = page("a", 1, 2, "ann"), page("b", 1, 1, "bob"), page("a", 2, 2, "eve")
        assert members_after(store, *pages) == ["bob"]

    def test_sessions_may_be_interleaved(self, store: Memberships) -> None:
        pages = page("a", 1, 2, "ann"), page("b", 1, 2, "ann", "bob"), page("a", 2, 2, "eve")
        assert members_after(store, add("old"), *pages) == ["ann", "bob", "eve"]
        assert members_after(store, page("b", 2, 2, "zoe")) == ["ann", "bob", "zoe"]

    def test_older_session_takes_nobody_out_of_a_newer_one(self, store: Memberships) -> None:
        first = page("a", 1, 3, "old"), page("b", 1, 2, "ann")
        assert members_after(store, *first, page("a", 2, 3, "ann"), page("b", 2, 2, "bob")) == ["ann", "bob"]

    def test_session_keeps_members_that_were_added_meanwhile(self, store: Memberships) -> None:
        updates = page("s", 1, 2, "ann"), add("new"), page("s", 2, 2, "bob")
        assert members_after(store, *updates) == ["ann", "bob", "new"]

    def test_session_leaves_out_members_that_were_removed_meanwhile(self, store: Memberships) -> None:
        assert members_after(store, page("s", 1, 2, "ann"), remove("ann"), page("s", 2, 2, "bob")) == ["bob"]

    def test_session_that_changes_its_number_of_pages_starts_over(self, store: Memberships) -> None:
        pages = page("s", 1, 2, "ann"), page("s", 2, 3, "bob"), page("s", 3, 3, "eve")
        assert members_after(store, add("old"), *pages) == ["ann", "bob", "eve", "old"]
        assert members_after(store, page("s", 1, 3, "zoe")) == ["bob", "eve", "zoe"]

    def test_session_that_sends_another_page_instead_starts_over(self, store: Memberships) -> None:
        pages = page("s", 1, 2, "ann"), page("s", 1, 2, "bob"), page("s", 2, 2, "eve")
        assert members_after(store, add("old"), *pages) == ["bob", "eve"]

    def test_session_may_start_over_after_its_end(self, store: Memberships) -> None:
        pages = page("s", 1, 2, "ann"), page("s", 2, 2, "bob"), page("s", 1, 2, "eve")
        assert members_after(store, *pages) == ["ann", "bob", "eve"]
        assert members_after(store, page("s", 2, 2, "bob")) == ["bob", "eve"]

    def test_whole_cohorts_without_a_session_are_one_page_each(self, store: Memberships) -> None:
        pages = page("", 1, 1, "ann"), page("", 1, 1, "bob"), page("", 1, 1, "ann")
        assert members_after(store, *pages) == ["ann"]

    def test_session_without_a_usable_member_replaces_nothing(self, store: Memberships) -> None:
        assert members_after(store, add("ann"), page("s", 1, 2, skipped=9), page("s", 2, 2, skipped=1)) == [
            "ann"
        ]

    def test_session_with_one_usable_member_replaces_the_cohort(self, store: Memberships) -> None:
        assert members_after(store, add("ann"), page("s", 1, 2, skipped=9), page("s", 2, 2, "bob")) == ["bob"]

    # Keys and versions

    def test_renamed_cohort_keeps_its_key(self, store: Memberships) -> None:
        members_after(store, add("ann"))
        keys = keys_of(store)
        assert members_after(store, add(name="VIPs of 2026")) == ["ann"]
        assert keys_of(store) == keys

    def test_version_changes_with_each_change(self, store: Memberships) -> None:
        versions = [store.version()]
        for update in (add("ann"), page("s", 1, 1, "bob"), remove("bob")):
            store.apply(update)
            versions.append(store.version())
        assert all(one != other for place, one in enumerate(versions) for other in versions[:place])

    def test_version_stays_while_nothing_changes(self, store: Memberships) -> None:
        members_after(store, add("ann"))
        version = store.version()
        store.traits_of(["ann"])
        assert store.version() == version
