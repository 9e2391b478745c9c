"""The contract of a membership store, for every implementation, and what the one in a file adds.

``ReferenceStore`` is the contract as plainly as Python can say it; the file is compared with it at random.
"""

import os
import signal
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flagsync import _database
from flagsync.cohorts import (
    Cohort,
    CohortUpdate,
    MembershipStore,
    SQLiteStore,
    StoreUnavailableError,
    TraitChange,
    _sessions,
    _sqlite,
)

Build = Callable[..., MembershipStore]
KEY = "mixpanel_cohort_vips"


@dataclass(eq=False)
class Session:
    """What came of one whole cohort so far, and whom it does not make leave."""

    id: str
    pages: int
    came: dict[int, CohortUpdate] = field(default_factory=dict)
    stays: set[str] = field(default_factory=set)

    def contradicts(self, update: CohortUpdate) -> bool:
        known = self.came.get(update.page, update)
        return update.pages != self.pages or update.members != known.members

    def complete(self) -> bool:
        usable = sum(len(page.members) for page in self.came.values())
        skipped = sum(page.skipped for page in self.came.values())
        return len(self.came) == self.pages and (usable > 0 or skipped == 0)


class ReferenceStore:
    """The contract in memory, for one cohort filter and the default keys."""

    def __init__(self, takes: Callable[[str, str], bool] = lambda *_: True) -> None:
        self._takes = takes
        self._names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._members: dict[str, set[str]] = {}
        self._sessions: dict[str, list[Session]] = {}  # the oldest first
        self._over: set[tuple[str, str]] = set()
        self._list: list[tuple[int, str, str]] | None = None
        self._number = self._version = 0
        self._unsure = False

    def apply(self, update: CohortUpdate) -> None:
        cohort = update.cohort_id
        if cohort in self._names or self._takes(cohort, update.cohort_name):
            self._names[cohort] = update.cohort_name
        if cohort not in self._names:
            return
        self._version += 1
        self._keys.setdefault(cohort, f"mixpanel_cohort_{update.cohort_name}")
        members, sessions = self._members.setdefault(cohort, set()), self._sessions.setdefault(cohort, [])
        if update.action == "remove_members":
            for session in sessions:
                session.stays -= {*update.members}
            self._change(cohort, members - {*update.members})
            return
        if update.action == "add_members":
            concerned = sessions
        elif (current := self._session(update)) is None:
            return
        else:
            concerned = sessions[: sessions.index(current) + 1]
        for other in concerned:
            other.stays |= {*update.members}
        self._change(cohort, members | {*update.members})
        if update.action == "members" and concerned[-1].complete():
            self._over |= {(cohort, session.id) for session in concerned[:-1] if session.id}
            del sessions[: len(concerned) - 1]
            self._change(cohort, self._members[cohort] & concerned[-1].stays)

    def _session(self, update: CohortUpdate) -> Session | None:
        sessions = self._sessions[update.cohort_id]
        if (update.cohort_id, update.session_id) in self._over:
            return None
        known = [session for session in sessions if session.id == update.session_id != ""]
        if known and not known[0].contradicts(update) and update.page in known[0].came:
            return None
        if known and known[0].contradicts(update):
            sessions.remove(known.pop())
        if not known:
            known = [Session(update.session_id, update.pages)]
            sessions += known
        known[0].came[update.page] = update
        return known[0]

    def _change(self, cohort: str, members: set[str]) -> None:
        for identifier in sorted(self._members[cohort] ^ members):
            if self._list is not None:
                self._number += 1
                self._list.append((self._number, cohort, identifier))
        self._members[cohort] = members

    def cohorts(self) -> list[Cohort]:
        return [
            Cohort(key, name, self._keys[key]) for key, name in self._names.items() if self._takes(key, name)
        ]

    def members(self, cohort_id: str) -> Iterator[str]:
        return iter(sorted(self._members.get(cohort_id, ())))

    def version(self) -> int:
        return self._version

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        cohorts = self.cohorts()
        return {who: {c.trait_key: who in self._members[c.id] for c in cohorts} for who in identifiers}

    def list_changes(self) -> None:
        if self._list is None:
            self._list = []
            for cohort, members in self._members.items():
                self._members[cohort] = set()
                self._change(cohort, members)

    def sweep(self) -> bool:
        return False

    def is_elected(self) -> bool:
        return True

    def resign(self) -> None:
        pass

    def bounds(self) -> tuple[int, int] | None:
        if self._list is None:
            return 0, 0
        return (self._list[0][0], self._list[-1][0]) if self._list else None

    def pending(self) -> int:
        return len(self._list or ())

    def is_unsure(self) -> bool:
        return self._unsure

    def take(self, limit: int) -> list[TraitChange]:
        taken = {cohort.id: cohort.trait_key for cohort in self.cohorts()}
        self._list = [entry for entry in self._list or () if entry[1] in taken]
        changes = dict[tuple[str, str], TraitChange]()
        for number, cohort, identifier in self._list[:limit]:
            numbers = changes[cohort, identifier].numbers if (cohort, identifier) in changes else ()
            holds = identifier in self._members[cohort]
            changes[cohort, identifier] = TraitChange(identifier, taken[cohort], holds, (*numbers, number))
        self._unsure = bool(changes)
        return [*changes.values()]

    def settle(self, changes: Collection[TraitChange], *, sure: bool) -> None:
        self._unsure = not sure
        settled = {number for change in changes for number in change.numbers}
        self._list = [entry for entry in self._list or () if entry[0] not in settled]

    def close(self) -> None:
        pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cohorts.db"


@pytest.fixture(params=["reference", "file"])
def build(request: pytest.FixtureRequest, path: Path) -> Iterator[Build]:
    stores: list[MembershipStore] = []

    def make(**options: Any) -> MembershipStore:
        store: MembershipStore
        store = ReferenceStore(**options) if request.param == "reference" else SQLiteStore(path, **options)
        stores.append(store)
        return store

    yield make
    for store in stores:
        store.close()


@pytest.fixture
def store(build: Build) -> MembershipStore:
    return build()


def add(*members: str, cohort: str = "7", name: str = "vips") -> CohortUpdate:
    return CohortUpdate("add_members", cohort, name, members=members)


def remove(*members: str) -> CohortUpdate:
    return CohortUpdate("remove_members", "7", "vips", members=members)


def page(session: str, number: int, pages: int, *members: str, skipped: int = 0) -> CohortUpdate:
    return CohortUpdate("members", "7", "vips", session, number, pages, members, skipped)


def after(store: MembershipStore, *updates: CohortUpdate) -> list[str]:
    for update in updates:
        store.apply(update)
    return [*store.members("7")]


def drain(store: MembershipStore, limit: int = 1000) -> list[tuple[str, bool]]:
    """Take all changes off the list."""
    written = []
    while store.sweep() or store.bounds():
        changes = store.take(limit)
        written += [(change.identifier, change.value) for change in changes]
        store.settle(changes, sure=True)
    return written


# Differences


def test_who_is_added_is_in_and_who_is_removed_is_out(store: MembershipStore) -> None:
    assert after(store, add("ann", "bob"), remove("ann")) == ["bob"]


def test_a_difference_may_come_twice(store: MembershipStore) -> None:
    assert after(store, add("ann"), add("ann", "bob"), remove("ann"), remove("ann")) == ["bob"]


def test_the_first_sync_may_be_a_difference(store: MembershipStore) -> None:
    assert after(store, add("ann")) == ["ann"]
    assert [*store.cohorts()] == [Cohort("7", "vips", KEY)]


def test_a_difference_without_members_makes_the_cohort_known(store: MembershipStore) -> None:
    assert after(store, add()) == []
    assert store.traits_of(["ann"]) == {"ann": {KEY: False}}


def test_cohorts_do_not_mix(store: MembershipStore) -> None:
    assert after(store, add("ann"), add("bob", cohort="8", name="others")) == ["ann"]
    traits = {"ann": {KEY: True, "mixpanel_cohort_others": False}}
    assert store.traits_of(["ann"]) == traits


def test_a_cohort_that_is_not_known_has_no_members(store: MembershipStore) -> None:
    assert [*store.members("nobody's")] == []


# Whole cohorts


def test_a_whole_cohort_replaces_what_was_there(store: MembershipStore) -> None:
    assert after(store, add("ann", "bob"), page("s", 1, 1, "bob", "eve")) == ["bob", "eve"]


def test_an_empty_whole_cohort_empties_it(store: MembershipStore) -> None:
    assert after(store, add("ann"), page("s", 1, 1)) == []


def test_nobody_leaves_before_all_pages_are_there(store: MembershipStore) -> None:
    assert after(store, add("old"), page("s", 1, 3, "ann"), page("s", 2, 3, "bob")) == ["ann", "bob", "old"]
    assert after(store, page("s", 3, 3)) == ["ann", "bob"]


def test_pages_come_in_any_order(store: MembershipStore) -> None:
    updates = page("s", 3, 3, "eve"), page("s", 1, 3, "ann"), page("s", 2, 3, "bob")
    assert after(store, add("old"), *updates) == ["ann", "bob", "eve"]


def test_a_repeated_page_is_one_page(store: MembershipStore) -> None:
    assert after(store, add("old"), page("s", 1, 2, "ann"), page("s", 1, 2, "ann")) == ["ann", "old"]


def test_a_page_that_is_repeated_after_the_end_undoes_nothing(store: MembershipStore) -> None:
    one, two = page("s", 1, 2, "ann"), page("s", 2, 2, "bob")
    assert after(store, one, two, remove("ann"), add("eve"), one, two) == ["bob", "eve"]


def test_an_abandoned_session_lets_nobody_leave(store: MembershipStore) -> None:
    assert after(store, add("old"), page("a", 1, 2, "ann"), add("bob")) == ["ann", "bob", "old"]


def test_a_new_session_takes_the_place_of_an_abandoned_one(store: MembershipStore) -> None:
    updates = page("a", 1, 2, "ann"), page("b", 1, 2, "bob"), page("b", 2, 2, "eve")
    assert after(store, add("old"), *updates) == ["bob", "eve"]


def test_late_pages_of_an_older_session_mean_nothing(store: MembershipStore) -> None:
    updates = page("a", 1, 2, "ann"), page("b", 1, 1, "bob"), page("a", 2, 2, "eve")
    assert after(store, *updates) == ["bob"]


def test_sessions_may_be_interleaved(store: MembershipStore) -> None:
    first = page("a", 1, 2, "ann"), page("b", 1, 2, "ann", "bob"), page("a", 2, 2, "eve")
    assert after(store, add("old"), *first) == ["ann", "bob", "eve"]
    assert after(store, page("b", 2, 2, "zoe")) == ["ann", "bob", "zoe"]


def test_an_older_session_takes_nobody_out_of_a_newer_one(store: MembershipStore) -> None:
    updates = page("a", 1, 3, "old"), page("b", 1, 2, "ann"), page("a", 2, 3, "ann"), page("b", 2, 2, "bob")
    assert after(store, *updates) == ["ann", "bob"]


def test_who_is_added_while_a_session_is_on_its_way_stays(store: MembershipStore) -> None:
    assert after(store, page("s", 1, 2, "ann"), add("new"), page("s", 2, 2, "bob")) == ["ann", "bob", "new"]


def test_who_is_removed_while_a_session_is_on_its_way_is_out(store: MembershipStore) -> None:
    assert after(store, page("s", 1, 2, "ann"), remove("ann"), page("s", 2, 2, "bob")) == ["bob"]


def test_a_session_that_changes_its_number_of_pages_starts_over(store: MembershipStore) -> None:
    updates = page("s", 1, 2, "ann"), page("s", 2, 3, "bob"), page("s", 3, 3, "eve")
    assert after(store, add("old"), *updates) == ["ann", "bob", "eve", "old"]
    assert after(store, page("s", 1, 3, "zoe")) == ["bob", "eve", "zoe"]


def test_a_session_that_sends_another_page_instead_starts_over(store: MembershipStore) -> None:
    updates = page("s", 1, 2, "ann"), page("s", 1, 2, "bob"), page("s", 2, 2, "eve")
    assert after(store, add("old"), *updates) == ["bob", "eve"]


def test_a_session_may_start_over_after_its_end(store: MembershipStore) -> None:
    assert after(store, page("s", 1, 2, "ann"), page("s", 2, 2, "bob"), page("s", 1, 2, "eve")) == [
        "ann",
        "bob",
        "eve",
    ]
    assert after(store, page("s", 2, 2, "bob")) == ["bob", "eve"]


def test_whole_cohorts_without_a_session_are_one_page_each(store: MembershipStore) -> None:
    assert after(store, page("", 1, 1, "ann"), page("", 1, 1, "bob"), page("", 1, 1, "ann")) == ["ann"]


def test_a_session_without_a_single_usable_member_replaces_nothing(store: MembershipStore) -> None:
    assert after(store, add("ann"), page("s", 1, 2, skipped=9), page("s", 2, 2, skipped=1)) == ["ann"]


def test_one_usable_member_is_enough(store: MembershipStore) -> None:
    assert after(store, add("ann"), page("s", 1, 2, skipped=9), page("s", 2, 2, "bob")) == ["bob"]


# Which cohorts, and what they are called


def test_a_renamed_cohort_keeps_its_key(store: MembershipStore) -> None:
    after(store, add("ann"), add(name="VIPs of 2026"))
    assert [*store.cohorts()] == [Cohort("7", "VIPs of 2026", KEY)]


def test_a_cohort_that_is_not_taken_is_not_there(build: Build) -> None:
    store = build(takes=lambda cohort_id, _: cohort_id != "7")
    assert after(store, add("ann"), add("ann", cohort="8", name="others")) == []
    assert store.traits_of(["ann"]) == {"ann": {"mixpanel_cohort_others": True}}


def test_a_cohort_can_be_renamed_out_of_what_is_taken(build: Build) -> None:
    store = build(takes=lambda _, name: name == "vips")
    store.list_changes()
    after(store, add("ann"), add("bob", name="secret"))
    assert (store.traits_of(["ann"]), [*store.cohorts()], drain(store)) == ({"ann": {}}, [], [])
    assert after(store, add(name="vips")) == ["ann", "bob"]


def test_what_was_read_is_good_until_the_version_changes(store: MembershipStore) -> None:
    versions = [store.version()]
    for update in (add("ann"), add(name="VIPs"), page("s", 1, 1, "bob"), remove("bob")):
        store.apply(update)
        versions.append(store.version())
    assert len({*versions}) == 5
    assert store.version() == versions[-1]


# The list of changes


def test_the_list_begins_with_all_members(store: MembershipStore) -> None:
    after(store, add("ann", "bob"))
    store.list_changes()
    store.list_changes()
    assert drain(store) == [("ann", True), ("bob", True)]


def test_without_a_reader_there_is_no_list(store: MembershipStore) -> None:
    after(store, add("ann"), page("s", 1, 1, "bob"))
    assert (store.bounds(), store.pending()) == ((0, 0), 0)
    store.list_changes()
    assert (store.bounds(), store.pending()) == ((1, 1), 1)


def test_who_joins_and_who_leaves_is_on_the_list(store: MembershipStore) -> None:
    store.list_changes()
    after(store, add("ann", "bob"))
    assert drain(store) == [("ann", True), ("bob", True)]
    after(store, add("bob", "eve"), remove("ann", "nobody"))
    assert drain(store) == [("eve", True), ("ann", False)]
    after(store, page("s", 1, 2, "eve"), page("s", 2, 2, "zoe"))
    assert drain(store) == [("zoe", True), ("bob", False)]


def test_what_holds_now_is_written_once(store: MembershipStore) -> None:
    store.list_changes()
    after(store, add("ann"), remove("ann"), add("ann", "bob"), remove("ann"))
    assert drain(store) == [("ann", False), ("bob", True)]


def test_who_leaves_with_all_and_joins_again_is_written_again(
    store: MembershipStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sessions, "SWEPT_ROWS", 1)  # bob is not swept out before he is back
    store.list_changes()
    after(store, add("ann", "bob"), page("s", 1, 1))
    changes = store.take(2)
    assert [(change.identifier, change.value) for change in changes] == [("ann", False), ("bob", False)]
    store.settle(changes, sure=True)
    after(store, add("bob"))
    assert dict(drain(store))["bob"] is True


def test_a_change_that_comes_during_the_writing_is_written_after_it(store: MembershipStore) -> None:
    store.list_changes()
    after(store, add("ann"))
    changes = store.take(10)
    after(store, remove("ann"))
    store.settle(changes, sure=True)
    assert [(change.identifier, change.value) for change in store.take(10)] == [("ann", False)]


def test_what_may_be_on_its_way_is_known_to_who_comes_after(store: MembershipStore) -> None:
    store.list_changes()
    seen = [store.is_unsure()]
    after(store, add("ann"))
    changes = store.take(10)
    seen.append(store.is_unsure())
    store.settle(changes, sure=False)
    seen.append(store.is_unsure())
    after(store, add("bob"))
    store.settle(store.take(10), sure=True)
    seen.append(store.is_unsure())
    assert (store.take(10), [*seen, store.is_unsure()]) == ([], [False, True, True, False, False])


def test_a_cohort_that_is_made_meanwhile_loses_no_change(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.list_changes()
        after(store, add("ann"))

        def takes(cohort_id: str, _: str) -> bool:
            if cohort_id == "7":
                store._keys.takes = lambda *_: True
                store.apply(add("bob", cohort="8", name="others"))
            return True

        store._keys.takes = takes
        assert [change.identifier for change in store.take(10)] == ["ann"]
        assert [change.identifier for change in store.take(10)] == ["ann", "bob"]


def test_what_is_not_settled_is_taken_again(store: MembershipStore) -> None:
    store.list_changes()
    after(store, add("ann", "bob", "eve"))
    changes = store.take(2)
    assert store.bounds() == (1, 3)
    store.settle(changes[:1], sure=True)
    assert (store.bounds(), store.pending()) == ((2, 3), 2)
    assert store.take(10) == [TraitChange("bob", KEY, True, (2,)), TraitChange("eve", KEY, True, (3,))]


# Whatever comes, the file holds what the contract says

IDENTIFIERS = st.lists(st.sampled_from("abcdef"), max_size=3, unique=True).map(tuple)


class Stores(RuleBasedStateMachine):
    """The same calls for both; ``written`` is what Flagsmith has been told."""

    def __init__(self) -> None:
        super().__init__()
        self.directory, self.swept_rows = TemporaryDirectory(), _sessions.SWEPT_ROWS
        _sessions.SWEPT_ROWS = 1
        self.reference, self.file = ReferenceStore(), self.open()
        self.written: dict[tuple[str, str], bool] = {}

    def open(self) -> SQLiteStore:
        return SQLiteStore(Path(self.directory.name) / "cohorts.db")

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
        self.file.apply(update)

    @rule()
    def list_changes(self) -> None:
        self.file.list_changes()

    @rule(limit=st.integers(1, 4), settled=st.integers(0, 4))
    def write(self, limit: int, settled: int) -> None:
        changes = self.file.take(limit)
        self.written.update({(change.identifier, change.trait_key): change.value for change in changes})
        self.file.settle(changes[:settled], sure=True)

    @rule()
    def restart(self) -> None:
        self.file.close()
        self.file = self.open()

    @invariant()
    def same_members(self) -> None:
        for cohort in "12":
            assert [*self.file.members(cohort)] == [*self.reference.members(cohort)]
        assert self.file.traits_of("abcdef") == self.reference.traits_of("abcdef")

    def teardown(self) -> None:
        self.file.list_changes()
        while self.file.sweep() or self.file.bounds():
            self.write(3, 3)
        told = Counter(key for key, value in self.written.items() if value)
        in_cohorts = Counter(
            (identifier, cohort.trait_key)
            for cohort in self.reference.cohorts()
            for identifier in self.reference.members(cohort.id)
        )
        self.file.close()
        self.directory.cleanup()
        _sessions.SWEPT_ROWS = self.swept_rows
        assert told == in_cohorts


Stores.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_whatever_comes_the_file_holds_what_the_contract_says = Stores.TestCase


# What the file adds


def test_what_was_stored_is_there_after_a_restart(path: Path) -> None:
    with SQLiteStore(path) as store:
        after(store, page("s", 1, 2, "ann"), add("old"))
    with SQLiteStore(path) as store:
        assert after(store, add("new"), page("s", 2, 2, "bob")) == ["ann", "bob", "new", "old"]


def test_a_process_that_is_killed_in_the_middle_of_a_page_has_not_begun_it(
    path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    process = start("crash.py", str(path))
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    with SQLiteStore(path) as store:
        assert [*store.members("7")] == ["ann", "old"]
        assert drain(store) == [("old", True), ("ann", True)]
        assert after(store, page("s", 2, 2, "bob")) == ["ann", "bob"]
        assert dict(drain(store)) == {"bob": True, "old": False}


def test_several_processes_share_the_file(path: Path) -> None:
    with SQLiteStore(path) as one, SQLiteStore(path) as other:
        one.apply(page("s", 1, 2, "ann"))
        assert after(other, page("s", 2, 2, "bob")) == [*one.members("7")] == ["ann", "bob"]
        assert one.traits_of(["ann"]) == other.traits_of(["ann"]) == {"ann": {KEY: True}}


def test_one_takes_changes_until_it_resigns(path: Path) -> None:
    with SQLiteStore(path) as other, SQLiteStore(path) as one:
        one.list_changes()
        other.apply(add("ann"))
        assert (len(one.take(1)), other.take(1), other.is_elected()) == (1, [], False)
        one.close()
        assert other.is_elected() is False
        one.resign()
        assert [change.identifier for change in other.take(1)] == ["ann"]
        other.resign()


def test_threads_may_bring_the_pages_of_a_session_all_at_once(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.apply(add("old"))
        pages = [page("s", number, 20, f"{number:02}", "all") for number in range(1, 21)]
        threads = [Thread(target=store.apply, args=(update,)) for update in pages * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [*store.members("7")] == [*(f"{number:02}" for number in range(1, 21)), "all"]


def test_a_forked_child_and_its_parent_go_on(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.list_changes()
        store.apply(add("ann"))
        assert store.is_elected()
        if (child := os.fork()) == 0:
            store.apply(add("bob"))
            os._exit(store.is_elected() or [*store.members("7")] != ["ann", "bob"])
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert [change.identifier for change in store.take(5)] == ["ann", "bob"]


def test_a_file_that_is_locked_is_unavailable_and_nothing_else(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.01)
    with SQLiteStore(path) as store, closing(sqlite3.connect(path, isolation_level=None)) as other:
        store.apply(add("ann"))
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnavailableError, match="database is locked"):
            store.apply(page("s", 1, 1))
        assert store.traits_of(["ann"]) == {"ann": {KEY: True}}
        other.execute("ROLLBACK")
        assert after(store, add("bob")) == ["ann", "bob"]


def test_an_update_is_stored_whole_or_not_at_all(path: Path) -> None:
    with SQLiteStore(path) as store:
        with pytest.raises(UnicodeEncodeError):
            store.apply(add("ann", "\ud800"))
        assert after(store, add("bob")) == ["bob"]


def test_a_file_that_is_removed_is_made_anew(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.apply(add("ann"))
        for file in path.parent.glob("cohorts.db*"):
            file.unlink()
        assert [*store.members("7")] == []
        assert after(store, add("bob", cohort="8", name="others")) == []
        assert store.traits_of(["bob"]) == {"bob": {"mixpanel_cohort_others": True}}


def test_a_relative_path_means_the_same_from_wherever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    with SQLiteStore(path.name) as store:
        monkeypatch.chdir("/")
        store.apply(add("ann"))
    assert path.exists()


def test_nobody_else_reads_the_file(path: Path) -> None:
    with SQLiteStore(path) as store:
        store.apply(add("ann"))
        assert {oct(file.stat().st_mode) for file in path.parent.iterdir()} == {"0o100600"}


def test_what_belongs_to_others_is_refused(path: Path) -> None:
    path.write_text("a diary")
    with pytest.raises(ValueError, match="The store of cohorts is a file of flagsync's own"):
        SQLiteStore(path)
    assert path.read_text() == "a diary"


def test_an_outbox_is_no_store(path: Path, flagsync: Callable[..., Any]) -> None:
    flagsync(outbox=path)
    with pytest.raises(ValueError, match="belongs to another application"):
        SQLiteStore(path)


@pytest.mark.parametrize("rows", [1, 2, 5, 6])
def test_those_who_left_are_swept_out_by_and_by(path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sessions, "SWEPT_ROWS", rows)
    with SQLiteStore(path) as store:
        store.list_changes()
        store.apply(add(*"abcdef"))
        store.apply(page("s", 1, 1, "c"))
        assert [*store.members("7")] == ["c"]
        told = dict(drain(store))
        assert [who for who, value in told.items() if value] == ["c"]
        assert {who for who, value in told.items() if not value} == {*"abdef"}
    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT identifier FROM members").fetchall() == [("c",)]


def test_members_are_read_in_parts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite, "PAGE_ROWS", 2)
    with SQLiteStore(path) as store:
        assert after(store, add(*"abcde")) == [*"abcde"]


def test_only_so_many_sessions_are_remembered(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sessions, "KEPT_SESSIONS", 3)
    with SQLiteStore(path) as store:
        for number in range(10):
            after(store, page(f"abandoned-{number}", 1, 2, "ann"), page(f"whole-{number}", 1, 1, "bob"))
    with closing(sqlite3.connect(path)) as file:
        sessions = [name for [name] in file.execute("SELECT id FROM sessions ORDER BY number")]
        assert sessions == ["whole-8", "abandoned-9", "whole-9"]
        assert file.execute("SELECT count(*) FROM pages").fetchone() == (1,)


def test_a_store_that_nobody_has_any_more_closes_its_file(path: Path) -> None:
    store = SQLiteStore(path)
    store.apply(add("ann"))
    [file] = [file for file in store._files[os.getpid()] if file.elected()]
    del store
    assert file.ballot is None
    assert file._connection is None


def test_collecting_a_store_waits_for_nobody(path: Path) -> None:
    store = SQLiteStore(path)
    store.apply(add("ann"))
    _, writer = store._files[os.getpid()]
    thread = Thread(target=writer.lock.acquire)
    thread.start()
    thread.join()
    del store
    assert writer._connection is not None
    writer.disconnect()


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"traits": ["vips"]}, "traits is a mapping of cohort ids or names, as text, to trait keys"),
        ({"traits": {7: "vip"}}, "traits is a mapping of cohort ids or names, as text, to trait keys"),
        ({"traits": {"7": "vip", "vips": "vip"}}, "and of one cohort"),
        ({"traits": {"vips": ""}}, "a trait key in traits is text of 1 to 200 characters"),
        ({"traits": {"vips": "x" * 201}}, "a trait key in traits is text of 1 to 200 characters"),
        ({"takes": "vips"}, "takes is a function of a cohort's id and name"),
    ],
)
def test_a_wrong_option_names_the_remedy(path: Path, options: dict[str, Any], remedy: str) -> None:
    with pytest.raises(ValueError, match=remedy):
        SQLiteStore(path, **options)
