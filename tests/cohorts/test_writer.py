"""Cohorts written into Flagsmith, against a server on loopback that behaves and misbehaves as the real one."""

import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError, _database, _sender
from flagsync._http import Answer, Outcome
from flagsync._report import Reporter
from flagsync.cohorts import (
    CohortUpdate,
    SQLiteStore,
    StoreUnavailableError,
    TraitStats,
    TraitWriter,
    _flagsmith,
    _sessions,
    _writer,
)
from flagsync.cohorts._flagsmith import Traits, read_answer
from flagsync.cohorts._writer import _ChangeList
from tests.flagsmith_server import KEY, FlagsmithServer

Write = Callable[..., TraitWriter]
VIPS = "mixpanel_cohort_vips"


@pytest.fixture
def flagsmith() -> Iterator[FlagsmithServer]:
    with FlagsmithServer() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield store


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes seconds takes milliseconds."""
    monkeypatch.setattr(_writer, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(_writer, "UNSURE_SECONDS", 0.001)
    monkeypatch.setattr(_sender, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def write(store: SQLiteStore, flagsmith: FlagsmithServer) -> Iterator[Write]:
    writers: list[TraitWriter] = []

    def build(to: SQLiteStore = store, **options: Any) -> TraitWriter:
        writers.append(TraitWriter(to, Flagsmith(KEY, flagsmith.api_url), **options))
        return writers[-1]

    yield build
    for writer in writers:
        writer.close(0.1)


def change(store: SQLiteStore, action: Any, *members: str, name: str = "vips") -> None:
    store.apply(CohortUpdate(action, name, name, members=members))


def in_flagsmith(server: FlagsmithServer) -> dict[str, Any]:
    return {identifier: value for (identifier, _), value in server.traits.items()}


def paths(server: FlagsmithServer) -> list[str]:
    return [f"{request.method} {request.path.removeprefix('/api/v1/')}" for request in server.requests]


@pytest.mark.parametrize("bulk", [True, False])
def test_who_is_in_and_then_who_joins_and_leaves_is_written(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bulk: bool
) -> None:
    flagsmith.bulk = bulk
    change(store, "add_members", "ann", "bob")
    writer = write()
    assert writer.flush()
    assert flagsmith.traits == {("ann", VIPS): True, ("bob", VIPS): True}
    change(store, "members", "bob", "eve")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": False, "bob": True, "eve": True}
    assert len(flagsmith.history) == 4


def test_a_bulk_is_one_request(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    change(store, "add_members", *(f"{number}" for number in range(5000)))
    writer = write()
    assert writer.flush()
    assert paths(flagsmith) == ["PUT traits/bulk/"]
    assert writer.stats() == TraitStats(pending=0, written=5000, rejected=0, requests=1, retries=0)


def test_a_request_has_the_time_that_a_real_server_takes_for_a_bulk(
    store: SQLiteStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    had = list[float]()

    def post(*arguments: Any) -> Answer:
        had.append(arguments[-1])
        return Answer(Outcome.ACCEPTED)

    monkeypatch.setattr(Traits, "post", post)
    change(store, "add_members", "ann")
    assert write().flush()
    assert had == [30]


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_where_there_is_no_bulk_each_identity_has_a_request_for_all_its_cohorts(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, status: int
) -> None:
    flagsmith.fail(times=1, status=status)
    change(store, "add_members", "ann", "bob")
    change(store, "add_members", "ann", name="others")
    writer = write()
    assert writer.flush()
    assert paths(flagsmith) == ["PUT traits/bulk/", "POST identities/", "POST identities/"]
    assert writer.stats().requests == 3
    assert len(flagsmith.traits) == 3


def test_many_identities_without_bulk_are_written_some_at_a_time(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.bulk = False
    change(store, "add_members", *(f"{number}" for number in range(1000)))
    assert write().flush()
    assert len(flagsmith.traits) == 1000
    connections = {request.connection for request in flagsmith.requests if request.method == "POST"}
    assert len(connections) <= _flagsmith.CONCURRENT_SINGLES


class Once(dict[str, int]):
    """Forgets what was read."""

    __getitem__ = dict.pop


def test_a_failure_among_many_identities_costs_few_of_them_a_second_request(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.bulk, flagsmith.refused = False, Once({"0900": 503})
    change(store, "add_members", *(f"{number:04}" for number in range(1000)))
    assert write().flush()
    assert len(flagsmith.traits) == 1000
    assert len(flagsmith.history) - 1000 <= _flagsmith.MAX_SINGLES


@pytest.mark.parametrize("bulk", [True, False])
@pytest.mark.parametrize("status", [400, 500])
def test_an_identity_that_flagsmith_refuses_is_rejected_alone(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, status: int, *, bulk: bool
) -> None:
    flagsmith.bulk, flagsmith.refused = bulk, {"07": status}
    errors: list[DeliveryError] = []
    change(store, "add_members", *(f"{number:02}" for number in range(20)))
    writer = write(on_error=errors.append)
    assert writer.flush()
    assert writer.close()
    assert len(flagsmith.traits) == 19
    assert (writer.stats().written, writer.stats().rejected) == (19, 1)
    lost = [error for error in errors if not error.will_retry]
    assert [(f"{error}", error.identifiers) for error in lost] == [
        (f"Flagsmith does not take traits (HTTP {status}): 1 update lost", ("07",))
    ]
    assert lost[0].answer == '{"identifier": ["is refused"]}'


def test_nothing_is_rejected_while_the_server_fails_on_everything(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(status=500, times=40)
    change(store, "add_members", "ann", "bob", "eve")
    writer = write()
    assert writer.flush()
    assert (len(flagsmith.traits), writer.stats().rejected) == (3, 0)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"drop": True}, {"status": 403}])
@pytest.mark.parametrize("bulk", [True, False])
def test_what_fails_is_tried_again(
    store: SQLiteStore,
    flagsmith: FlagsmithServer,
    write: Write,
    fault: dict[str, Any],
    *,
    bulk: bool,
) -> None:
    flagsmith.bulk = bulk
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush()
    flagsmith.fail(times=3, **fault)
    change(store, "remove_members", "ann")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": False}
    assert writer.stats().retries == 3


def test_a_server_that_does_not_manage_many_gets_fewer(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(times=3, status=504)
    change(store, "add_members", *(f"{number}" for number in range(5000)))
    assert write().flush()
    sizes = [len(request.updates) for request in flagsmith.requests]
    assert sizes == [5000, 2500, 1250, 625, 1250, 2500, 625]


def test_what_holds_last_comes_last(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    writer = write()
    assert writer.flush()
    for round_ in range(20):
        change(store, "remove_members" if round_ % 2 else "add_members", "ann", "bob")
    change(store, "add_members", "ann")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": False}


def test_cohorts_that_are_not_taken_are_not_written(
    tmp_path: Path, flagsmith: FlagsmithServer, write: Write
) -> None:
    with SQLiteStore(tmp_path / "some.db", takes=lambda _, name: name != "secret") as store:
        change(store, "add_members", "ann")
        change(store, "add_members", "bob", name="secret")
        assert write(store).flush()
    assert in_flagsmith(flagsmith) == {"ann": True}


# One writer, and its end


def test_one_of_several_writers_writes_and_another_takes_over(
    tmp_path: Path, store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    first = write()
    assert first.flush()
    with SQLiteStore(tmp_path / "cohorts.db") as other:
        second = write(other)
        change(store, "add_members", "ann")
        assert second.flush()
        assert (first.stats().written, second.stats().written) == (1, 0)
        assert first.close()
        change(store, "add_members", "bob")
        assert second.flush()
        assert second.stats().written == 1


def test_close_writes_what_is_on_the_list(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    with write() as writer:
        change(store, "add_members", "ann")
        assert writer.close(10)
    assert in_flagsmith(flagsmith) == {"ann": True}
    change(store, "add_members", "bob")
    assert writer.close() is False


def test_what_is_left_is_for_the_next_writer(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(status=503)
    change(store, "add_members", "ann")
    writer = write()
    assert flagsmith.wait_for_requests(1)
    assert writer.close(0.05) is False
    assert writer.flush(0.0) is False
    flagsmith.recover()
    with SQLiteStore(store._path) as another:
        assert write(another).flush()
    assert in_flagsmith(flagsmith) == {"ann": True}


def test_flush_is_a_deadline(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    flagsmith.fail(status=503)
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush(0.01) is False
    assert writer.stats().pending == 1


def test_flush_is_a_deadline_even_for_finding_who_left(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(store, "add_members", *"abcdef")
    changes = _ChangeList(store, "", Traits({}, {}), Reporter(None))
    assert changes.complete(0.0)
    monkeypatch.setattr(_sessions, "SWEPT_ROWS", 1)
    change(store, "members", "a")
    assert (changes.complete(0.0), changes.complete(float("inf"))) == (False, True)


def test_close_finds_out_who_left(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sessions, "SWEPT_ROWS", 1)
    monkeypatch.setattr(_writer, "INTERVAL_SECONDS", 60.0)
    change(store, "add_members", *"abcdef")
    change(store, "members", "a")
    writer = write()
    assert writer.close(60)
    assert [who for who, value in in_flagsmith(flagsmith).items() if value] == ["a"]


def test_a_store_has_one_writer_at_a_time(store: SQLiteStore, write: Write) -> None:
    writer = write()
    with pytest.raises(ValueError, match="a store has one TraitWriter at a time"):
        write()
    writer.close()
    assert write().flush()


def test_who_comes_after_a_writer_that_died_lets_its_last_request_end(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.list_changes()
    change(store, "add_members", "ann")
    assert store.take(1)  # and not settled
    monkeypatch.setattr(_writer, "UNSURE_SECONDS", float("inf"))
    writer = write()
    assert (writer.flush(0.1), writer.close(0.1), flagsmith.requests) == (False, False, [])
    monkeypatch.setattr(_writer, "UNSURE_SECONDS", 0.01)
    with SQLiteStore(store._path) as another:
        assert write(another).flush()
    assert in_flagsmith(flagsmith) == {"ann": True}


@pytest.mark.parametrize("fault", [{"drop": True}, {"status": 502}, {"status": 504}])
def test_after_a_request_without_an_answer_nothing_is_written_before_it_must_have_ended(
    store: SQLiteStore,
    flagsmith: FlagsmithServer,
    write: Write,
    fault: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_writer, "UNSURE_SECONDS", float("inf"))
    flagsmith.fail(times=1, **fault)
    change(store, "add_members", "ann")
    writer = write()
    assert (writer.flush(0.2), writer.close(0.2), len(flagsmith.requests)) == (False, False, 1)
    assert store.is_unsure()


def test_where_no_thread_starts_any_more_the_writers_own_does_it_all(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    flagsmith.bulk = False
    change(store, "add_members", "ann", "bob")
    writer = write()
    assert writer.flush()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as out_of_threads:
        out_of_threads.setattr(threading.Thread, "start", refuse)
        change(store, "remove_members", "ann", "bob")
        answer = writer._traits.post(flagsmith.api_url, [_flagsmith.as_json(c) for c in store.take(2)], 5)
    assert answer.outcome is Outcome.ACCEPTED
    assert in_flagsmith(flagsmith) == {"ann": False, "bob": False}


def test_a_bulk_endpoint_that_was_away_is_found_again(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_flagsmith, "NO_BULK_SECONDS", 0.0)
    flagsmith.fail(times=1, status=404)
    change(store, "add_members", "ann")
    assert write().flush()
    assert paths(flagsmith) == ["PUT traits/bulk/"] * 2


def test_a_writer_that_nobody_has_any_more_ends(store: SQLiteStore, flagsmith: FlagsmithServer) -> None:
    writer = TraitWriter(store, Flagsmith(KEY, flagsmith.api_url))
    [thread] = [thread for thread in threading.enumerate() if thread.name == "flagsync-traits"]
    del writer
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_collecting_a_writer_in_a_forked_child_is_nothing_to_its_parent(
    store: SQLiteStore, write: Write
) -> None:
    writer = write()
    _writer._stop(writer._sender, os.getpid() + 1)
    change(store, "add_members", "ann")
    assert writer.flush()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_a_forked_child_leaves_the_writing_to_its_parent(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write()
    if (child := os.fork()) == 0:
        os._exit(writer.flush() or writer.close())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(_writer, "getpid", lambda: os.getpid() + 1)
        assert (writer.flush(), writer.close()) == (False, False)
    change(store, "add_members", "ann")
    assert writer.flush()


def test_a_store_that_fails_is_reported_once_and_waited_for(
    store: SQLiteStore,
    flagsmith: FlagsmithServer,
    write: Write,
    monkeypatch: pytest.MonkeyPatch,
    logged: Callable[[], list[str]],
) -> None:
    monkeypatch.setattr(_database, "BUSY_SECONDS", 0.001)
    change(store, "add_members", "ann")
    lock = sqlite3.connect(store._path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    writer = write()
    assert writer.flush(0.05) is False
    assert writer._list.newest == 0  # what is there can be read
    lock.close()
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": True}
    assert logged() == [
        "The store of cohorts cannot be used (StoreUnavailableError): traits wait",
        "The store of cohorts is in use again",
    ]


class Broken(SQLiteStore):
    """A store that can do nothing now."""

    def bounds(self) -> tuple[int, int] | None:
        raise StoreUnavailableError("down")

    take = list_changes = sweep = is_elected = bounds  # type: ignore[assignment]


def test_a_store_that_can_do_nothing_never_counts_as_written(tmp_path: Path, write: Write) -> None:
    with Broken(tmp_path / "broken.db") as store:
        writer = write(store)
        assert (writer.flush(0.05), writer.close(0.05)) == (False, False)
        changes = writer._list
        assert (changes.newest, changes.oldest(), changes.take()) == (float("inf"), 0.0, [])


# Whose key


@pytest.mark.parametrize("client", ["client-side-key", Flagsmith("client-side-key")])
def test_a_client_side_key_is_refused(store: SQLiteStore, client: Any) -> None:
    with pytest.raises(ValueError, match="drops them"):
        TraitWriter(store, client)


def test_a_client_without_a_key_is_refused(store: SQLiteStore, offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match="server-side key"):
        TraitWriter(store, offline)


def test_a_server_side_key_alone_is_for_flagsmiths_cloud(store: SQLiteStore) -> None:
    writer = TraitWriter(store, "ser.key")
    assert writer._list._destination.url == "https://edge.api.flagsmith.com/api/v1/"
    writer.close()


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.ACCEPTED),
        (204, Outcome.ACCEPTED),
        (302, Outcome.MISCONFIGURED),
        (400, Outcome.REFUSED),
        (401, Outcome.MISCONFIGURED),
        (403, Outcome.MISCONFIGURED),
        (404, Outcome.MISCONFIGURED),
        (408, Outcome.UNAVAILABLE),
        (413, Outcome.REFUSED),
        (429, Outcome.UNAVAILABLE),
        (500, Outcome.REFUSED),
        (502, Outcome.UNAVAILABLE),
        (504, Outcome.UNAVAILABLE),
    ],
)
def test_an_answer_means(status: int, outcome: Outcome) -> None:
    assert read_answer(status, b"", 7.0)[:1] == (outcome,)


@pytest.mark.parametrize("bulk", [True, False])
def test_a_page_for_people_is_no_success(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bulk: bool
) -> None:
    flagsmith.bulk = bulk
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush()
    errors: list[DeliveryError] = []
    flagsmith.fail(times=1, status=200, body=" <!doctype html>")
    writer.close()
    with SQLiteStore(store._path) as another:
        change(store, "add_members", "bob")
        assert write(another, on_error=errors.append).flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": True}
    assert "not an answer of Flagsmith; check the environment key and api_url" in f"{errors[0]}"


def test_a_store_that_is_replaced_is_listed_anew(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush()
    Path(store._path).unlink()
    change(store, "add_members", "bob")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": True}


def test_only_a_store_is_written(flagsmith: FlagsmithServer) -> None:
    with pytest.raises(ValueError, match="store is a MembershipStore"):
        TraitWriter("cohorts.db", Flagsmith(KEY, flagsmith.api_url))  # type: ignore[arg-type]
