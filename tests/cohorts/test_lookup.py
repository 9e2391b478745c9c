"""Cohorts in every evaluation: what the flags of an identity depend on, and what a store that fails costs."""

import json
import os
import threading
from collections.abc import Callable, Collection, Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
import responses
from flagsmith import Flagsmith
from flagsmith.models import Flags
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync._encoding.distinct_id import distinct_id_of
from flagsync._report import Reporter
from flagsync.cohorts import CohortUpdate, MembershipReader, SQLiteStore, StoreUnavailableError
from flagsync.cohorts.lookup import CohortTraits, Freshness
from flagsync.testing import MixpanelServer
from tests.support.identifiers import Masked, Unspeakable, User

Build = Callable[..., FlagSync]
API = "https://flagsmith.example.com/api/v1/"
VIPS, OTHERS = "mixpanel_cohort_vips", "mixpanel_cohort_others"
PATIENT = Freshness(wait_seconds=10.0, fresh_seconds=0.0)
FRESH = Freshness(wait_seconds=10.0)
RESTING = Freshness(wait_seconds=10.0, fresh_seconds=0.0, rest_seconds=60.0)
HASTY = Freshness(wait_seconds=0.01, fresh_seconds=0.0, rest_seconds=60.0)


class Clock:
    """The time, which stands until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Evaluating:
    """Evaluates with cohorts, as ``FlagSync`` does, as patiently as a test needs it."""

    def __init__(
        self,
        flagsmith: Flagsmith,
        store: MembershipReader,
        freshness: Freshness = PATIENT,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.flagsmith, self.cohorts = flagsmith, CohortTraits(store, Reporter(None), freshness, clock)

    def get_identity_flags(self, identifier: str, traits: Any = None) -> Flags:
        return self.flagsmith.get_identity_flags(identifier, self.cohorts.merge(identifier, traits))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield store


@pytest.fixture
def evaluating() -> Iterator[Callable[..., Evaluating]]:
    """Builds what evaluates with cohorts; ends the threads."""
    built: list[Evaluating] = []

    def build(*arguments: Any, **options: Any) -> Evaluating:
        built.append(Evaluating(*arguments, **options))
        return built[-1]

    yield build
    for one in built:
        one.cohorts.stop()


@pytest.fixture
def flagsmith(document: dict[str, Any], tmp_path: Path) -> Callable[..., Flagsmith]:
    """Builds clients whose seg_override is "gold" if a trait fits, and off otherwise."""

    def build(operator: str = "EQUAL", trait: str = VIPS) -> Flagsmith:
        [segment] = document["project"]["segments"]
        segment["rules"][0]["rules"][0]["conditions"] = [
            {"operator": operator, "property_": trait, "value": "true"}
        ]
        path = tmp_path / "environment.json"
        path.write_text(json.dumps(document), "utf-8")
        return Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(path)))

    return build


Evaluate = Callable[..., Evaluating]
Offline = Callable[..., Flagsmith]


def change(store: SQLiteStore, action: Any, *members: str, name: str = "vips") -> None:
    store.apply(CohortUpdate(action, name, name, members=members))


def is_gold(client: Evaluating | FlagSync, identifier: str, traits: Any = None) -> bool:
    return bool(client.get_identity_flags(identifier, traits).get_feature_value("seg_override") == "gold")


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_segment_on_a_cohort_decides_under_local_evaluation(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    client = evaluating(flagsmith(), store)
    change(store, "add_members", "ann")
    assert (is_gold(client, "ann"), is_gold(client, "bob")) == (True, False)
    change(store, "remove_members", "ann")
    assert is_gold(client, "ann") is False


def test_former_members_and_strangers_have_the_same_traits(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    client = evaluating(flagsmith("NOT_EQUAL"), store)
    change(store, "add_members", "ann", "bob")
    change(store, "remove_members", "ann")
    assert [is_gold(client, identifier) for identifier in ("ann", "bob", "nobody")] == [True, False, True]


def test_traits_of_the_call_win_over_cohorts(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    client = evaluating(flagsmith(), store)
    change(store, "add_members", "ann")
    assert (is_gold(client, "ann", {VIPS: False}), is_gold(client, "bob", {VIPS: True})) == (False, True)


def test_cohort_reaches_mixpanel_as_a_flag(
    store: SQLiteStore, flagsync: Build, flagsmith: Offline, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    change(store, "add_members", "ann")
    assert any(is_gold(client, "ann") for _ in range(10_000))  # the store may take longer than a call waits
    client.flush()
    assert mixpanel.profiles["ann"]["seg_override"] == "gold"


def test_lookup_ignores_white_space_around_an_identifier(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    change(store, "add_members", "ann")
    assert is_gold(evaluating(flagsmith(), store), " ann\n")


@pytest.mark.parametrize(
    ("identifier", "member"),
    [(42, "42"), (UUID(int=1), f"{UUID(int=1)}"), (User.ANN, "ann"), (Masked(" ann"), "ann")],
    ids=["int", "UUID", "enum", "masked"],
)
def test_lookup_is_by_the_text_that_the_profile_has(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline, identifier: Any, member: str
) -> None:
    change(store, "add_members", member)
    assert is_gold(evaluating(flagsmith(), store), identifier)
    assert distinct_id_of(identifier, str) == member


def test_lookup_leaves_an_identifier_that_has_no_text_to_flagsmith(store: SQLiteStore) -> None:
    cohorts = CohortTraits(store, Reporter(None))
    assert cohorts.merge(Unspeakable(), {"plan": "pro"}) == {"plan": "pro"}


def test_interrupt_of_the_main_thread_gets_through_a_lookup(store: SQLiteStore) -> None:
    class Interrupting:
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CohortTraits(store, Reporter(None)).merge(Interrupting(), None)


def test_cohorts_are_sent_as_transient_traits_in_remote_mode(store: SQLiteStore, evaluating: Evaluate) -> None:
    client = evaluating(Flagsmith(environment_key="key", api_url=API), store)
    change(store, "add_members", "ann")
    change(store, "add_members", "bob", name="others")
    with responses.RequestsMock() as api:
        api.post(f"{API}identities/", json={"flags": [], "traits": []})
        client.get_identity_flags("ann", {"plan": "pro"})
        sent = json.loads(api.calls[0].request.body or "")
    assert sent["traits"] == [
        {"trait_key": VIPS, "trait_value": True, "transient": True},
        {"trait_key": OTHERS, "trait_value": False, "transient": True},
        {"trait_key": "plan", "trait_value": "pro"},
    ]


def test_cached_identity_is_not_looked_up_again(
    tmp_path: Path, evaluating: Evaluate, offline: Flagsmith
) -> None:
    with Slow(tmp_path / "cohorts.db") as store:
        client = evaluating(offline, store, FRESH, Clock())
        change(store, "add_members", "ann")
        for _ in range(3):
            client.get_identity_flags("ann")
        assert store.looked_up == [{"ann"}]


def test_cached_identity_is_looked_up_again_when_it_is_not_fresh_any_more(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    clock = Clock()
    client = evaluating(flagsmith(), store, FRESH, clock)
    seen = [is_gold(client, "ann")]
    change(store, "add_members", "ann")
    seen.append(is_gold(client, "ann"))
    clock.now += 1.0
    seen.append(is_gold(client, "ann"))
    assert seen == [False, False, True]


def test_new_version_that_another_lookup_has_found_counts_for_all_identities(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    clock = Clock()
    client = evaluating(flagsmith(), store, FRESH, clock)
    assert is_gold(client, "bob") is False
    change(store, "add_members", "bob")
    clock.now += 1.0
    assert is_gold(client, "ann") is False
    assert is_gold(client, "bob")


@pytest.mark.parametrize("identifier", ["\ud800", "nul\0", "x" * 5000, ""])
def test_identifier_that_no_store_can_hold_is_in_no_cohort(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline, identifier: str, logged: Any
) -> None:
    client = evaluating(flagsmith("NOT_EQUAL"), store)
    change(store, "add_members", "ann")
    assert (is_gold(client, identifier), is_gold(client, "ann"), logged()) == (True, False, [])


def test_bad_arguments_get_the_answer_of_flagsmith(
    store: SQLiteStore, flagsync: Build, flagsmith: Offline
) -> None:
    bare = flagsmith()
    client: Any = flagsync(bare, None, cohorts=store)
    with pytest.raises(AttributeError) as expected:
        bare.get_identity_flags("ann", ["vips"])  # type: ignore[arg-type]
    with pytest.raises(AttributeError) as actual:
        client.get_identity_flags("ann", ["vips"])
    assert str(actual.value) == str(expected.value)
    flags = client.get_identity_flags(42)
    assert flags.all_flags() == bare.get_identity_flags(42).all_flags()  # type: ignore[arg-type]


class Reader:
    """A store that does nothing but answer evaluations."""

    def __init__(self) -> None:
        self.members = {"ann"}

    def version(self) -> object:
        return len(self.members)

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        return {who: {VIPS: who in self.members} for who in identifiers}


def test_cohorts_may_be_a_store_that_only_reads(flagsync: Build, flagsmith: Offline) -> None:
    client = flagsync(flagsmith(), None, cohorts=Reader())
    assert any(is_gold(client, "ann") for _ in range(10_000))  # as above
    assert is_gold(client, "bob") is False


def test_cohorts_that_are_no_store_are_refused(flagsync: Build) -> None:
    with pytest.raises(ValueError, match="cohorts must be a store, such as"):
        flagsync(cohorts="cohorts.db")


# A store that is slow or down


class Slow(SQLiteStore):
    """A store that answers when it may, and notes what is looked up."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: BaseException | None = None
        self.looked_up: list[set[str]] = []

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        self.looked_up.append({*identifiers})
        self.may_answer.wait()
        if self.error:
            raise self.error
        return super().traits_of(identifiers)


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    """A slow store, in which ann is a vip."""
    with Slow(tmp_path / "cohorts.db") as store:
        change(store, "add_members", "ann")
        yield store
        store.may_answer.set()


class Impatient(Evaluating):
    """Waits as long as a test says at the moment."""

    def become(self, freshness: Freshness) -> None:
        self.cohorts._freshness = freshness


def test_cached_memberships_are_used_while_the_store_hangs(
    slow: Slow, flagsmith: Offline, logged: Callable[[], list[str]]
) -> None:
    client = Impatient(flagsmith(), slow, RESTING)
    assert is_gold(client, "ann")
    slow.may_answer.clear()
    client.become(HASTY)
    assert (is_gold(client, "ann"), is_gold(client, "bob")) == (True, False)
    assert len(slow.looked_up) == 2  # the second caller did not even wait
    reason = "The store of cohorts cannot be used (it does not answer): evaluations use cached memberships"
    assert logged() == [reason]
    slow.may_answer.set()
    client.cohorts.stop()


def test_uncached_identity_gets_no_cohort_traits_while_the_store_is_down(
    slow: Slow, evaluating: Evaluate, flagsmith: Offline
) -> None:
    slow.may_answer.clear()
    client = evaluating(flagsmith("NOT_EQUAL"), slow, HASTY)
    assert is_gold(client, "bob") is (
        flagsmith("NOT_EQUAL").get_identity_flags("bob").get_feature_value("seg_override") == "gold"
    )
    assert client.cohorts.merge("bob", {"plan": "pro"}) == {"plan": "pro"}


@pytest.mark.parametrize("error", [StoreUnavailableError("locked"), RuntimeError("a bug"), SystemExit(1)])
def test_store_that_fails_is_left_alone_for_a_while_and_then_used_again(
    error: BaseException,
    slow: Slow,
    evaluating: Evaluate,
    flagsmith: Offline,
    logged: Callable[[], list[str]],
) -> None:
    clock = Clock()
    client, slow.error = evaluating(flagsmith(), slow, RESTING, clock), error
    assert [is_gold(client, "ann") for _ in range(3)] == [False] * 3
    assert len(slow.looked_up) == 1
    clock.now += 60.0
    assert (is_gold(client, "ann"), len(slow.looked_up)) == (False, 2)
    clock.now += 60.0
    slow.error = None
    assert is_gold(client, "ann")
    name = type(error).__name__
    assert logged() == [
        f"The store of cohorts cannot be used ({name}): evaluations use cached memberships",
        "The store of cohorts is in use again",
    ]


def test_late_answer_is_cached_and_the_store_is_left_alone_all_the_same(
    slow: Slow, evaluating: Evaluate, flagsmith: Offline
) -> None:
    client = evaluating(flagsmith(), slow, HASTY)
    slow.may_answer.clear()
    assert is_gold(client, "ann") is False
    slow.may_answer.set()
    while not is_gold(client, "ann"):
        pass
    assert [is_gold(client, "bob"), len(slow.looked_up)] == [False, 1]


def test_lookups_at_the_same_time_are_read_together(
    slow: Slow, evaluating: Evaluate, flagsmith: Offline
) -> None:
    client, gold = evaluating(flagsmith(), slow), dict[str, bool]()
    slow.may_answer.clear()

    def evaluate(identifier: str) -> None:
        gold[identifier] = is_gold(client, identifier)

    threads = [threading.Thread(target=evaluate, args=(who,)) for who in ("first", "ann", "bob", "eve")]
    threads[0].start()
    while not slow.looked_up:
        pass
    for thread in threads[1:]:
        thread.start()
    while client.cohorts._processes.get().lookups.qsize() < 3:
        pass
    slow.may_answer.set()
    for thread in threads:
        thread.join()
    assert gold == {"first": False, "ann": True, "bob": False, "eve": False}
    assert slow.looked_up == [{"first"}, {"ann", "bob", "eve"}]


# The thread


def test_lookup_thread_ends_with_the_client_and_comes_back_when_needed(
    store: SQLiteStore, flagsync: Build, flagsmith: Offline
) -> None:
    change(store, "add_members", "ann")
    with flagsync(flagsmith(), None, cohorts=store) as client:
        client.get_identity_flags("ann")
        [thread] = [thread for thread in threading.enumerate() if thread.name == "flagsync-cohorts"]
    thread.join()
    client.get_identity_flags("bob")
    assert "flagsync-cohorts" in names()
    client.close()


def test_lookup_thread_ends_when_there_is_nothing_to_look_up(
    store: SQLiteStore, evaluating: Evaluate, offline: Flagsmith
) -> None:
    client = evaluating(offline, store, Freshness(wait_seconds=10.0, fresh_seconds=0.0, idle_seconds=0.0))
    for _ in range(20):
        client.get_identity_flags("ann")
    while "flagsync-cohorts" in names():
        pass


def test_lookup_that_comes_while_the_thread_is_ending_is_answered(store: SQLiteStore) -> None:
    cohorts = CohortTraits(store, Reporter(None), PATIENT)
    process = cohorts._processes.get()
    process.has_thread = True  # this one, which is ending
    merging = [threading.Thread(target=cohorts.merge, args=(who, None)) for who in ("ann", "bob")]
    for number, thread in enumerate(merging):
        thread.start()
        while process.lookups.qsize() < 2 * number + 1:
            pass
        cohorts.stop()
    assert [cohorts._step(), process.has_thread, cohorts._step(), process.has_thread] == [
        0.0,
        True,
        None,
        False,
    ]
    for thread in merging:
        thread.join()


def test_lookup_does_not_wait_where_no_thread_starts_any_more(
    store: SQLiteStore,
    evaluating: Evaluate,
    flagsmith: Offline,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    change(store, "add_members", "ann")
    client = evaluating(flagsmith(), store, Freshness(wait_seconds=inf))
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert is_gold(client, "ann") is False
    assert logged() == [
        "The store of cohorts cannot be used (no thread can start): evaluations use cached memberships"
    ]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_forked_child_looks_up_in_a_thread_of_its_own(
    store: SQLiteStore, evaluating: Evaluate, flagsmith: Offline
) -> None:
    change(store, "add_members", "ann", "bob")
    client = evaluating(flagsmith(), store)
    assert is_gold(client, "ann")
    if (child := os.fork()) == 0:
        client.cohorts.stop()  # which is nothing to the parent's thread
        right = is_gold(client, "ann") and is_gold(client, "bob") and "flagsync-cohorts" in names()
        os._exit(not right)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_gold(client, "bob")


def test_stop_before_the_first_lookup_does_nothing(store: SQLiteStore) -> None:
    cohorts = CohortTraits(store, Reporter(None), PATIENT)
    cohorts.stop()
    assert cohorts._processes.existing() is None


def test_traits_that_identities_share_are_bounded(store: SQLiteStore) -> None:
    freshness = Freshness(wait_seconds=10.0, fresh_seconds=0.0, max_remembered=2)
    cohorts = CohortTraits(store, Reporter(None), freshness)
    for number in range(9):
        change(store, "add_members", "ann", name=f"{number}")
        assert len(cohorts.merge("ann", None) or ()) == number + 1
    assert len(cohorts._shared) <= 3
    cohorts.stop()
