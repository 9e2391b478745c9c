"""What the stores of this package have in common beyond the contract, which ``tests/testing`` has them pass."""

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from threading import Thread
from types import MappingProxyType
from typing import Any

import pytest

from flagsync.cohorts import (
    ChangeLog,
    ChangeLogs,
    Cohort,
    MembershipReader,
    MembershipSink,
    PostgresStore,
    SQLiteStore,
)
from flagsync.cohorts.postgres.store import StoreLimits as PostgresLimits
from flagsync.cohorts.sqlite.store import StoreLimits as SQLiteLimits
from tests.support.updates import KEY, add, after, drain, page, remove

Store = SQLiteStore | PostgresStore
OpenStore = Callable[..., Store]
NONE: Mapping[str, Any] = MappingProxyType({})


@pytest.fixture
def open_store(place: str) -> OpenStore:
    """Opens the store of a test, each time as another object."""
    url, _, schema = place.partition("#")

    def build(limits: Mapping[str, Any] = NONE, **options: Any) -> Store:
        if schema:
            return PostgresStore(url, schema=schema, limits=PostgresLimits(**limits), **options)
        return SQLiteStore(place, limits=SQLiteLimits(**limits), **options)

    return build


def production(store: Store) -> ChangeLog:
    """Return the log of an environment, which was started."""
    log = store.change_log("production")
    log.start()
    return log


def identifiers(log: ChangeLog, limit: int = 10) -> list[str]:
    return [change.identifier for change in log.claim(limit)]


def test_store_has_all_roles(open_store: OpenStore) -> None:
    with open_store() as store:
        roles = MembershipSink, MembershipReader, ChangeLogs
        assert [isinstance(store, role) for role in roles] == [True] * 3


def test_cohorts_are_listed_in_the_order_of_first_sight(open_store: OpenStore) -> None:
    with open_store() as store:
        after(
            store, add("ann", cohort="9"), add("ann", cohort="8", name="others"), add(cohort="9", name="VIPs")
        )
        assert store.cohorts() == [Cohort("9", "VIPs", KEY), Cohort("8", "others", "mixpanel_cohort_others")]


def test_members_of_an_unknown_cohort_are_nobody(open_store: OpenStore) -> None:
    with open_store() as store:
        assert [*store.members("unknown")] == []


def test_cohort_that_is_left_out_is_not_there(open_store: OpenStore) -> None:
    with open_store(takes=lambda cohort_id, _: cohort_id != "7") as store:
        assert after(store, add("ann"), add("ann", cohort="8", name="others")) == []
        assert store.traits_of(["ann"]) == {"ann": {"mixpanel_cohort_others": True}}


def test_cohort_can_be_renamed_out_of_what_is_included(open_store: OpenStore) -> None:
    with open_store(takes=lambda _, name: name == "vips") as store:
        log = production(store)
        after(store, add("ann"), add("bob", name="secret"))
        assert (store.traits_of(["ann"]), store.cohorts(), drain(log)) == ({"ann": {}}, [], [])
        log.release_lease()
        assert after(store, add(name="vips")) == ["ann", "bob"]


def test_version_changes_when_a_cohort_is_renamed(open_store: OpenStore) -> None:
    with open_store() as store:
        versions = [store.version()]
        for update in (add("ann"), add(name="VIPs"), page("s", 1, 1, "bob"), remove("bob")):
            store.apply(update)
            versions.append(store.version())
        assert len({*versions}) == 5
        assert store.version() == versions[-1]


def test_cohort_that_is_made_during_a_claim_loses_no_change(open_store: OpenStore) -> None:
    is_first = [True]

    def takes(cohort_id: str, _: str) -> bool:
        if cohort_id == "7" and is_claiming and is_first:
            is_first.clear()
            store.apply(add("bob", cohort="8", name="others"))
        return True

    is_claiming = False
    with open_store(takes=takes) as store:
        log = production(store)
        after(store, add("ann"))
        is_claiming = True
        assert identifiers(log) == ["ann"]
        assert identifiers(log) == ["ann", "bob"]


def test_store_keeps_everything_when_it_is_opened_again(open_store: OpenStore) -> None:
    with open_store() as store:
        after(store, page("s", 1, 2, "ann"), add("old"))
    with open_store() as store:
        assert after(store, add("new"), page("s", 2, 2, "bob")) == ["ann", "bob", "new", "old"]


def test_page_of_a_process_that_is_killed_in_the_middle_of_it_is_not_begun(
    open_store: OpenStore, place: str, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("crash.py", place)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with open_store() as store:
        assert [*store.members("7")] == ["ann", "old"]
        log = store.change_log("production")
        assert drain(log) == [("old", True), ("ann", True)]
        assert after(store, page("s", 2, 2, "bob")) == ["ann", "bob"]
        assert dict(drain(log)) == {"bob": True, "old": False}


def test_store_is_shared_by_several_objects(open_store: OpenStore) -> None:
    with open_store() as one, open_store() as other:
        one.apply(page("s", 1, 2, "ann"))
        assert after(other, page("s", 2, 2, "bob")) == [*one.members("7")] == ["ann", "bob"]
        assert one.traits_of(["ann"]) == other.traits_of(["ann"]) == {"ann": {KEY: True}}


def test_lease_is_held_by_one_store_until_it_is_released(open_store: OpenStore) -> None:
    with open_store() as other, open_store() as one:
        first, second = production(one), production(other)
        other.apply(add("ann"))
        assert (len(first.claim(1)), second.claim(1), second.try_acquire_lease()) == (1, [], False)
        one.close()
        assert second.try_acquire_lease() is False
        first.release_lease()
        assert identifiers(second, 1) == ["ann"]


def test_apply_takes_the_pages_of_a_session_from_many_threads_at_once(open_store: OpenStore) -> None:
    with open_store() as store:
        store.apply(add("old"))
        pages = [page("s", number, 20, f"{number:02}", "all") for number in range(1, 21)]
        threads = [Thread(target=store.apply, args=(update,)) for update in pages * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [*store.members("7")] == [*(f"{number:02}" for number in range(1, 21)), "all"]


def test_forked_child_uses_the_store_and_leaves_the_lease_to_its_parent(open_store: OpenStore) -> None:
    with open_store() as store:
        log = production(store)
        store.apply(add("ann"))
        assert log.try_acquire_lease()
        if (child := os.fork()) == 0:
            store.apply(add("bob"))
            os._exit(log.try_acquire_lease() or [*store.members("7")] != ["ann", "bob"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert identifiers(log) == ["ann", "bob"]


def test_member_that_leaves_twice_is_on_the_log_once(open_store: OpenStore) -> None:
    with open_store() as store:
        log = production(store)
        after(store, add("ann", "bob"), remove("ann"))
        assert dict(drain(log)) == {"ann": False, "bob": True}
        after(store, remove("ann", "nobody"), page("s", 1, 1, "bob"))
        assert drain(log) == []


def test_apply_stores_an_update_as_a_whole_or_not_at_all(open_store: OpenStore) -> None:
    with open_store() as store:
        with pytest.raises(UnicodeEncodeError):
            store.apply(add("ann", "\ud800"))
        assert after(store, add("bob")) == ["bob"]


def test_members_are_read_in_parts(open_store: OpenStore) -> None:
    with open_store(limits={"page_rows": 2}) as store:
        assert after(store, add(*"abcde")) == [*"abcde"]


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"traits": ["vips"]}, "traits must be a mapping of cohort ids or names, as text, to trait keys"),
        ({"traits": {7: "vip"}}, "traits must be a mapping of cohort ids or names, as text, to trait keys"),
        ({"traits": {"7": "vip", "vips": "vip"}}, "and belong to one cohort"),
        ({"traits": {"vips": ""}}, "a trait key in traits must be text of 1 to 200 characters"),
        ({"traits": {"vips": "x" * 201}}, "a trait key in traits must be text of 1 to 200 characters"),
        ({"takes": "vips"}, "takes must be a function of a cohort's id and name"),
    ],
)
def test_invalid_option_names_what_is_accepted(
    open_store: OpenStore, options: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(ValueError, match=remedy):
        open_store(**options)
