"""Cohorts in every evaluation: what the flags of an identity depend on, and what a store that fails costs."""

import json
import os
import threading
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import responses
from flagsmith import Flagsmith
from flagsmith.offline_handlers import LocalFileHandler

from flagsync import FlagSync
from flagsync._report import Reporter
from flagsync.cohorts import CohortUpdate, SQLiteStore, StoreUnavailableError, _lookup
from flagsync.cohorts._lookup import CohortTraits
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]
API = "https://flagsmith.example.com/api/v1/"
VIPS, OTHERS = "mixpanel_cohort_vips", "mixpanel_cohort_others"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteStore]:
    """A store whose changes are seen at once."""
    monkeypatch.setattr(_lookup, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(_lookup, "WAIT_SECONDS", 10.0)
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield store


@pytest.fixture
def clock(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which stands; what is cached of the store is fresh for a second."""
    now = [1000.0]
    monkeypatch.setattr(_lookup, "FRESH_SECONDS", 1.0)
    monkeypatch.setattr(_lookup, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def flagsmith(document: dict[str, Any], tmp_path: Path) -> Callable[..., Flagsmith]:
    """Builds clients for whom seg_override is "gold" if a trait fits, and off otherwise."""

    def build(operator: str = "EQUAL", trait: str = VIPS) -> Flagsmith:
        [segment] = document["project"]["segments"]
        segment["rules"][0]["rules"][0]["conditions"] = [
            {"operator": operator, "property_": trait, "value": "true"}
        ]
        path = tmp_path / "environment.json"
        path.write_text(json.dumps(document), "utf-8")
        return Flagsmith(offline_mode=True, offline_handler=LocalFileHandler(str(path)))

    return build


def change(store: SQLiteStore, action: Any, *members: str, name: str = "vips") -> None:
    store.apply(CohortUpdate(action, name, name, members=members))


def is_gold(client: FlagSync, identifier: str, traits: Any = None) -> bool:
    return bool(client.get_identity_flags(identifier, traits).get_feature_value("seg_override") == "gold")


def test_a_segment_on_a_cohort_decides_under_local_evaluation(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    change(store, "add_members", "ann")
    assert (is_gold(client, "ann"), is_gold(client, "bob")) == (True, False)
    change(store, "remove_members", "ann")
    assert is_gold(client, "ann") is False


def test_who_left_and_who_was_never_there_are_alike(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    client = flagsync(flagsmith("NOT_EQUAL"), cohorts=store)
    change(store, "add_members", "ann", "bob")
    change(store, "remove_members", "ann")
    assert [is_gold(client, identifier) for identifier in ("ann", "bob", "nobody")] == [True, False, True]


def test_the_callers_own_traits_win(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    change(store, "add_members", "ann")
    assert (is_gold(client, "ann", {VIPS: False}), is_gold(client, "bob", {VIPS: True})) == (False, True)


def test_a_cohort_reaches_mixpanel_as_a_flag(
    store: SQLiteStore,
    flagsync: Build,
    flagsmith: Callable[..., Flagsmith],
    mixpanel: MixpanelServer,
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    change(store, "add_members", "ann")
    client.get_identity_flags("ann")
    client.flush()
    assert mixpanel.profiles["ann"]["seg_override"] == "gold"


def test_white_space_round_an_identifier_does_not_matter(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    change(store, "add_members", "ann")
    assert is_gold(client, " ann\n")


def test_in_remote_mode_every_cohort_goes_along_and_none_is_stored(
    store: SQLiteStore, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(Flagsmith(environment_key="key", api_url=API), cohorts=store)
    change(store, "add_members", "ann")
    change(store, "add_members", "bob", name="others")
    with responses.RequestsMock() as api:
        api.add_passthru(mixpanel.url)
        api.post(f"{API}identities/", json={"flags": [], "traits": []})
        client.get_identity_flags("ann", {"plan": "pro"})
        sent = json.loads(api.calls[0].request.body or "")
    assert sent["traits"] == [
        {"trait_key": VIPS, "trait_value": True, "transient": True},
        {"trait_key": OTHERS, "trait_value": False, "transient": True},
        {"trait_key": "plan", "trait_value": "pro"},
    ]


def test_what_is_cached_is_not_asked_again(tmp_path: Path, flagsync: Build, offline: Flagsmith) -> None:
    with Slow(tmp_path / "cohorts.db") as store:
        client = flagsync(offline, cohorts=store)
        change(store, "add_members", "ann")
        for _ in range(3):
            client.get_identity_flags("ann")
        assert store.asked == [{"ann"}]


def test_a_change_is_seen_once_what_is_cached_is_old(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith], clock: list[float]
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    seen = [is_gold(client, "ann")]
    change(store, "add_members", "ann")
    seen.append(is_gold(client, "ann"))
    clock[0] += 1.0
    seen.append(is_gold(client, "ann"))
    assert seen == [False, False, True]


def test_what_somebody_elses_question_brought_to_light_counts_for_all(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith], clock: list[float]
) -> None:
    client = flagsync(flagsmith(), cohorts=store)
    assert is_gold(client, "bob") is False
    change(store, "add_members", "bob")
    clock[0] += 1.0
    assert is_gold(client, "ann") is False
    assert is_gold(client, "bob")


@pytest.mark.parametrize("identifier", ["\ud800", "nul\0", "x" * 5000, ""])
def test_whoever_can_be_in_no_cohort_is_in_none(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith], identifier: str, logged: Any
) -> None:
    client = flagsync(flagsmith("NOT_EQUAL"), None, cohorts=store)
    change(store, "add_members", "ann")
    assert (is_gold(client, identifier), is_gold(client, "ann"), logged()) == (True, False, [])


def test_bad_arguments_get_flagsmiths_own_answer(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
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


def test_only_a_store_is_taken(flagsync: Build) -> None:
    with pytest.raises(ValueError, match="cohorts is a store, such as"):
        flagsync(cohorts="cohorts.db")


# A store that is slow or down


class Slow(SQLiteStore):
    """A store that answers when it may, and notes what it is asked."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error: BaseException | None = None
        self.asked: list[set[str]] = []

    def traits_of(self, identifiers: Collection[str]) -> dict[str, dict[str, bool]]:
        self.asked.append({*identifiers})
        self.may_answer.wait()
        if self.error:
            raise self.error
        return super().traits_of(identifiers)


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slow]:
    """A store of which nothing is fresh for long, and which ann is a vip in."""
    monkeypatch.setattr(_lookup, "FRESH_SECONDS", 0.0)
    monkeypatch.setattr(_lookup, "WAIT_SECONDS", 10.0)
    monkeypatch.setattr(_lookup, "REST_SECONDS", float("inf"))
    with Slow(tmp_path / "cohorts.db") as store:
        change(store, "add_members", "ann")
        yield store
        store.may_answer.set()


def test_a_store_that_hangs_keeps_nobody_waiting_and_what_is_cached_is_served(
    slow: Slow,
    flagsync: Build,
    flagsmith: Callable[..., Flagsmith],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    client = flagsync(flagsmith(), cohorts=slow)
    assert is_gold(client, "ann")
    slow.may_answer.clear()
    monkeypatch.setattr(_lookup, "WAIT_SECONDS", 0.01)
    assert (is_gold(client, "ann"), is_gold(client, "bob")) == (True, False)
    assert len(slow.asked) == 2  # the second caller did not even wait
    reason = "The store of cohorts cannot be used (it does not answer): evaluations have what is cached"
    assert logged() == [reason]


def test_of_whom_nothing_is_known_has_no_cohort_at_all(
    slow: Slow, flagsync: Build, flagsmith: Callable[..., Flagsmith], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookup, "WAIT_SECONDS", 0.01)
    slow.may_answer.clear()
    client = flagsync(flagsmith("NOT_EQUAL"), cohorts=slow)
    assert is_gold(client, "bob") is is_gold(flagsync(flagsmith("NOT_EQUAL")), "bob")


@pytest.mark.parametrize("error", [StoreUnavailableError("locked"), RuntimeError("a bug"), SystemExit(1)])
def test_a_store_that_fails_is_left_alone_for_a_while_and_then_used_again(
    error: BaseException,
    slow: Slow,
    flagsync: Build,
    flagsmith: Callable[..., Flagsmith],
    logged: Callable[[], list[str]],
) -> None:
    client, slow.error = flagsync(flagsmith(), cohorts=slow), error
    assert [is_gold(client, "ann") for _ in range(3)] == [False] * 3
    assert len(slow.asked) == 1
    cohorts = client._cohorts
    assert cohorts is not None
    cohorts._rest_until = 0.0
    assert (is_gold(client, "ann"), len(slow.asked)) == (False, 2)
    cohorts._rest_until, slow.error = 0.0, None
    assert is_gold(client, "ann")
    name = type(error).__name__
    assert logged() == [
        f"The store of cohorts cannot be used ({name}): evaluations have what is cached",
        "The store of cohorts is in use again",
    ]


def test_a_late_answer_is_kept_but_the_store_is_left_alone_all_the_same(
    slow: Slow, flagsync: Build, flagsmith: Callable[..., Flagsmith], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = flagsync(flagsmith(), cohorts=slow)
    monkeypatch.setattr(_lookup, "WAIT_SECONDS", 0.01)
    slow.may_answer.clear()
    assert is_gold(client, "ann") is False
    slow.may_answer.set()
    while not is_gold(client, "ann"):
        pass
    assert [is_gold(client, "bob"), len(slow.asked)] == [False, 1]


def test_who_asks_at_the_same_time_is_answered_together(
    slow: Slow, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    client, gold = flagsync(flagsmith(), None, cohorts=slow), dict[str, bool]()
    slow.may_answer.clear()

    def ask(identifier: str) -> None:
        gold[identifier] = is_gold(client, identifier)

    threads = [threading.Thread(target=ask, args=(who,)) for who in ("first", "ann", "bob", "eve")]
    threads[0].start()
    while not slow.asked:
        pass
    for thread in threads[1:]:
        thread.start()
    desk = client._cohorts._desk  # type: ignore[union-attr]
    while desk.questions.qsize() < 3:
        pass
    slow.may_answer.set()
    for thread in threads:
        thread.join()
    assert gold == {"first": False, "ann": True, "bob": False, "eve": False}
    assert slow.asked == [{"first"}, {"ann", "bob", "eve"}]


# The thread


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_the_thread_ends_with_the_client_and_comes_back_when_needed(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    change(store, "add_members", "ann")
    with flagsync(flagsmith(), None, cohorts=store) as client:
        assert is_gold(client, "ann")
        [thread] = [thread for thread in threading.enumerate() if thread.name == "flagsync-cohorts"]
    thread.join()
    assert is_gold(client, "ann")
    assert "flagsync-cohorts" in names()
    client.close()


def test_the_thread_ends_when_nobody_asks(
    store: SQLiteStore, flagsync: Build, offline: Flagsmith, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookup, "IDLE_SECONDS", 0.0)
    client = flagsync(offline, None, cohorts=store)
    for _ in range(20):
        client.get_identity_flags("ann")
    while "flagsync-cohorts" in names():
        pass


def test_who_asks_while_the_thread_is_ending_is_answered(store: SQLiteStore) -> None:
    desk = _lookup._Desk()
    questions = [_lookup._Question(identifier) for identifier in ("ann", "bob")]
    for question in (None, questions[0], None, questions[1], None):
        desk.questions.put(question)
    desk.served = True
    CohortTraits(store, Reporter(None))._serve(desk)
    assert [question.wait() for question in questions] == [True, True]


def test_where_no_thread_starts_any_more_nobody_waits(
    store: SQLiteStore,
    flagsync: Build,
    flagsmith: Callable[..., Flagsmith],
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread at interpreter shutdown")

    monkeypatch.setattr(_lookup, "WAIT_SECONDS", float("inf"))
    change(store, "add_members", "ann")
    client = flagsync(flagsmith(), None, cohorts=store)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert is_gold(client, "ann") is False
    assert logged() == [
        "The store of cohorts cannot be used (no thread starts): evaluations have what is cached"
    ]


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_a_forked_child_asks_for_itself(
    store: SQLiteStore, flagsync: Build, flagsmith: Callable[..., Flagsmith]
) -> None:
    change(store, "add_members", "ann", "bob")
    client = flagsync(flagsmith(), None, cohorts=store)
    assert is_gold(client, "ann")
    if (child := os.fork()) == 0:
        os._exit(not (is_gold(client, "ann") and is_gold(client, "bob")))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert is_gold(client, "bob")


def test_a_process_leaves_its_parents_thread_alone(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    change(store, "add_members", "ann")
    cohorts = CohortTraits(store, Reporter(None))
    parent, pid = cohorts._desk, os.getpid()
    with monkeypatch.context() as child:
        child.setattr(_lookup, "getpid", lambda: pid + 1)
        cohorts.stop()
        assert parent.questions.empty()
        assert cohorts.merge("ann", None) == {VIPS: {"value": True, "transient": True}}
        cohorts.stop()
    assert (cohorts._desk is parent, parent.served) == (False, False)


def test_what_is_shared_between_identities_is_bounded(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_lookup, "REMEMBERED_IDENTITIES", 2)
    cohorts = CohortTraits(store, Reporter(None))
    for number in range(9):
        change(store, "add_members", "ann", name=f"{number}")
        assert len(cohorts.merge("ann", None) or ()) == number + 1
    assert len(cohorts._shared) <= 3
    cohorts.stop()
