"""Cohorts written into Flagsmith, against a server on loopback that behaves and misbehaves as the real one."""

import gc
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import DeliveryError
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.destinations import Backoff
from flagsync.cohorts import CohortUpdate, LogState, SQLiteStore, StoreUnavailableError, TraitStats, TraitWriter
from flagsync.cohorts.sqlite.store import StoreLimits
from flagsync.cohorts.trait_writer import writer as module
from flagsync.cohorts.trait_writer.batch_size import Batches
from flagsync.cohorts.trait_writer.flagsmith import FlagsmithTraits
from flagsync.cohorts.trait_writer.pace import Pace
from flagsync.cohorts.trait_writer.writer import Writing
from tests.support.flagsmith_server import KEY, FlagsmithServer
from tests.support.reference_store import ReferenceLog, ReferenceStore
from tests.support.waiting import wait_until

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


@pytest.fixture
def another(tmp_path: Path) -> Iterator[SQLiteStore]:
    """Another store on the same file, as another process has one."""
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield store


def fast(
    *,
    interval_seconds: float = 0.01,
    unsure_seconds: float = 0.001,
    no_bulk_seconds: float = 600.0,
    max_tries: int = 20,
    first: int = 50,
    first_retry_seconds: float = 0.001,
    max_retry_seconds: float = 0.002,
) -> Writing:
    """Have what takes seconds take milliseconds."""
    return Writing(
        pace=Pace(
            interval_seconds=interval_seconds,
            unsure_seconds=unsure_seconds,
            unsure_factor=0.0,
            first_retry_seconds=first_retry_seconds,
            max_retry_seconds=max_retry_seconds,
            max_tries=max_tries,
        ),
        batches=Batches(first=first, no_bulk_seconds=no_bulk_seconds),
        backoff=Backoff(first_seconds=0.001, max_seconds=0.03),
    )


@pytest.fixture
def write(store: SQLiteStore, flagsmith: FlagsmithServer) -> Iterator[Write]:
    writers: list[TraitWriter] = []

    def build(to: Any = store, key: str = KEY, **options: Any) -> TraitWriter:
        options = {"writing": fast(), **options}
        writers.append(TraitWriter(to, Flagsmith(key, flagsmith.api_url), **options))
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
def test_writer_writes_all_members_and_then_what_changes(
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


def test_bulk_is_one_request(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    change(store, "add_members", *(f"{number}" for number in range(500)))
    writer = write(writing=fast(first=500))
    assert writer.flush()
    assert paths(flagsmith) == ["PUT traits/bulk/"]
    assert writer.stats() == TraitStats(pending=0, written=500, rejected=0, requests=1, retries=0)


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_server_without_bulk_gets_one_request_for_all_cohorts_of_an_identity(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, status: int
) -> None:
    flagsmith.fail(times=1, status=status)
    change(store, "add_members", "ann", "bob")
    change(store, "add_members", "ann", name="others")
    writer = write()
    assert writer.flush()
    assert paths(flagsmith) == [
        "PUT traits/bulk/",
        "POST identities/",
        "POST identities/",
        "GET identities/?identifier=ann",
    ]
    assert writer.stats().requests == 4
    assert len(flagsmith.traits) == 3


@pytest.mark.parametrize("bulk", [True, False])
def test_identity_that_flagsmith_refuses_is_rejected_alone(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bulk: bool
) -> None:
    flagsmith.bulk, flagsmith.refused = bulk, {"07": 400}
    errors: list[DeliveryError] = []
    change(store, "add_members", *(f"{number:02}" for number in range(20)))
    writer = write(on_error=errors.append)
    assert writer.flush()
    assert writer.close()
    assert len(flagsmith.traits) == 19
    assert (writer.stats().written, writer.stats().rejected) == (19, 1)
    assert [(f"{error}", error.identifiers) for error in errors] == [
        ("Flagsmith does not accept traits (HTTP 400): 1 update lost", ("07",))
    ]
    assert errors[0].answer == '{"identifier": ["is refused"]}'


@pytest.mark.parametrize("bulk", [True, False])
def test_identity_that_flagsmith_fails_on_is_set_aside_and_given_up_at_last(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bulk: bool
) -> None:
    flagsmith.bulk, flagsmith.refused = bulk, {"07": 500}
    errors: list[DeliveryError] = []
    change(store, "add_members", *(f"{number:02}" for number in range(20)))
    writer = write(on_error=errors.append, writing=fast(max_tries=4))
    wait_until(lambda: errors)  # it has failed alone
    tried = len(flagsmith.requests) + 5
    wait_until(lambda: len(flagsmith.requests) > tried)
    change(store, "add_members", "later")
    assert writer.flush()
    assert writer.close()
    assert len(flagsmith.traits) == 20
    assert (writer.stats().written, writer.stats().rejected) == (20, 1)
    reason = "Flagsmith does not accept traits (HTTP 500): 1 update"
    assert [(f"{error}", error.identifiers) for error in errors] == [
        (f"{reason} kept and sent again later", ("07",)),
        (f"{reason} lost", ("07",)),
    ]


@pytest.mark.parametrize(("bad", "bulk"), [(5, True), (5, False), (15, True), (30, False)])
def test_identities_that_flagsmith_always_fails_on_do_not_keep_others_waiting(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bad: int, bulk: bool
) -> None:
    flagsmith.bulk, flagsmith.refused = bulk, {f"{number:02}": 500 for number in range(bad)}
    change(store, "add_members", *(f"{number:02}" for number in range(60)))
    writer = write(writing=fast(max_tries=10**6, first=10))
    for who in ("ann", "bob", "eve"):
        tried = len(flagsmith.requests) + bad + 5
        wait_until(lambda: len(flagsmith.requests) > tried)  # noqa: B023 - it is called at once
        change(store, "add_members", who)
        wait_until(lambda: (who, VIPS) in flagsmith.traits)  # noqa: B023 - as above
    wait_until(lambda: writer.stats().pending == bad)
    assert writer.stats().rejected == 0


def test_batches_that_flagsmith_refuses_as_a_whole_do_not_keep_others_waiting(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.refused = {f"{number:03}": 400 for number in range(100)}
    change(store, "add_members", *flagsmith.refused)
    change(store, "add_members", *(f"good_{number}" for number in range(20)))
    writer = write(writing=fast(first_retry_seconds=0.05, max_retry_seconds=5.0))
    wait_until(lambda: len(flagsmith.traits) == 20, writer.stats)


def test_change_that_is_set_aside_is_pending(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.refused = {"07": 500}
    change(store, "add_members", *(f"{number:02}" for number in range(20)))
    writer = write(writing=fast(max_tries=10**6))
    assert writer.flush(0.3) is False
    assert (writer.stats().written, writer.stats().pending) == (19, 1)
    flagsmith.refused = {}
    assert writer.flush()
    assert writer.stats().written == 20


def test_writer_rejects_nothing_while_the_server_fails_on_everything(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(status=500, times=40)
    change(store, "add_members", "ann", "bob", "eve")
    writer = write()
    assert writer.flush()
    assert (len(flagsmith.traits), writer.stats().rejected) == (3, 0)


@pytest.mark.parametrize("fault", [{"status": 503}, {"status": 429}, {"drop": True}, {"status": 403}])
@pytest.mark.parametrize("bulk", [True, False])
def test_writer_retries_after_a_failure(
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
    # A request that is dropped on a kept connection is sent again at once.
    assert writer.stats().retries == (2 if "drop" in fault else 3)


def test_writer_writes_last_what_holds_last(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    writer = write()
    assert writer.flush()
    for round_ in range(20):
        change(store, "remove_members" if round_ % 2 else "add_members", "ann", "bob")
    change(store, "add_members", "ann")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": False}


def test_cohort_that_is_left_out_is_not_written(
    tmp_path: Path, flagsmith: FlagsmithServer, write: Write
) -> None:
    with SQLiteStore(tmp_path / "some.db", takes=lambda _, name: name != "secret") as store:
        change(store, "add_members", "ann")
        change(store, "add_members", "bob", name="secret")
        assert write(store).flush()
    assert in_flagsmith(flagsmith) == {"ann": True}


def test_close_writes_what_is_on_the_log(store: SQLiteStore, flagsmith: FlagsmithServer, write: Write) -> None:
    with write() as writer:
        change(store, "add_members", "ann")
        assert writer.close(10)
    assert in_flagsmith(flagsmith) == {"ann": True}
    change(store, "add_members", "bob")
    assert writer.close() is False


def test_flush_after_close_says_whether_everything_is_written(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    change(store, "add_members", "ann")
    writer = write()
    assert writer.close()
    assert writer.flush()
    change(store, "add_members", "bob")
    assert not writer.flush(0.1)


def test_flush_returns_false_at_its_deadline(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(status=503)
    change(store, "add_members", "ann")
    writer = write()
    assert flagsmith.wait_for_requests(1)  # until the writer has looked, it does not know that anything waits
    assert writer.flush(0.01) is False
    assert writer.stats().pending == 1


@pytest.mark.parametrize("client", ["client-side-key", Flagsmith("client-side-key")])
def test_client_side_key_is_refused(store: SQLiteStore, client: Any) -> None:
    with pytest.raises(ValueError, match="drops them"):
        TraitWriter(store, client)


def test_client_without_a_key_is_refused(store: SQLiteStore, offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match="server-side key"):
        TraitWriter(store, offline)


@pytest.mark.parametrize("bulk", [True, False])
def test_html_page_is_no_success(
    store: SQLiteStore, another: SQLiteStore, flagsmith: FlagsmithServer, write: Write, *, bulk: bool
) -> None:
    flagsmith.bulk = bulk
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush()
    errors: list[DeliveryError] = []
    flagsmith.fail(times=1, status=200, body=" <!doctype html>")
    writer.close()
    change(store, "add_members", "bob")
    assert write(another, on_error=errors.append).flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": True}
    assert "not an answer from Flagsmith; check the environment key and api_url" in f"{errors[0]}"


def test_replaced_store_is_written_anew(
    tmp_path: Path, store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    change(store, "add_members", "ann")
    writer = write()
    assert writer.flush()
    (tmp_path / "cohorts.db").unlink()
    change(store, "add_members", "bob")
    assert writer.flush()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": True}


@pytest.mark.parametrize("request_seconds", [30.0, 12.0])
def test_request_has_the_time_that_a_real_server_takes_for_a_bulk(
    store: SQLiteStore, write: Write, monkeypatch: pytest.MonkeyPatch, request_seconds: float
) -> None:
    given = list[float]()

    def post(_: FlagsmithTraits, __: str, ___: Any, seconds: float) -> Answer:
        given.append(seconds)
        return Answer(Outcome.ACCEPTED)

    monkeypatch.setattr(FlagsmithTraits, "post", post)  # a server on loopback does not see the time
    change(store, "add_members", "ann")
    assert write(writing=Writing(request_seconds=request_seconds)).flush()
    assert given == [request_seconds]
    assert Writing().request_seconds == 30


def test_request_without_bulk_is_one_of_few_at_a_time(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.bulk = False
    change(store, "add_members", *(f"{number}" for number in range(1000)))
    assert write().flush()
    assert len(flagsmith.traits) == 1000
    connections = {request.connection for request in flagsmith.requests if request.method == "POST"}
    assert len(connections) <= Batches().concurrent_singles


class Once(dict[str, int]):
    """Forgets what was read."""

    __getitem__ = dict.pop


def test_request_that_fails_among_many_repeats_few_others(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.bulk, flagsmith.refused = False, Once({"0900": 503})
    change(store, "add_members", *(f"{number:04}" for number in range(1000)))
    assert write().flush()
    assert len(flagsmith.traits) == 1000
    assert len(flagsmith.history) - 1000 <= Batches().max_singles


def test_bulk_endpoint_that_was_away_is_found_again(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(times=1, status=404)
    change(store, "add_members", "ann")
    assert write(writing=fast(no_bulk_seconds=0.0)).flush()
    assert paths(flagsmith) == ["PUT traits/bulk/"] * 2


# One writer at a time


def test_lease_lets_one_of_several_writers_write_and_another_one_take_over(
    store: SQLiteStore, another: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    first = write()
    assert first.flush()
    second = write(another)
    change(store, "add_members", "ann")
    assert second.flush()
    assert (first.stats().written, second.stats().written) == (1, 0)
    assert first.close()
    change(store, "add_members", "bob")
    assert second.flush()
    assert second.stats().written == 1


def test_lease_is_held_by_one_writer_after_its_lock_file_was_removed(
    tmp_path: Path, store: SQLiteStore, another: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    writers = write(), write(another)
    for number in range(20):
        if number == 5:
            [lock] = tmp_path.glob("cohorts.db-*-sender")
            lock.unlink()
        change(store, "add_members", f"{number}")
        assert all(writer.flush() for writer in writers)
    assert len(flagsmith.history) == len(flagsmith.traits) == 20


def test_store_has_one_writer_at_a_time(store: SQLiteStore, write: Write) -> None:
    writer = write()
    with pytest.raises(ValueError, match="a store can have only one TraitWriter for an environment at a time"):
        write()
    writer.close()
    assert write().flush()


class Peculiar(ReferenceStore):
    """A store that is equal to every other one, and neither hashable nor weakly referenceable."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, _: object) -> bool:
        return True


def test_stores_are_told_apart_by_identity(flagsmith: FlagsmithServer, write: Write) -> None:
    stores = [Peculiar() for _ in range(2)]
    for number, store in enumerate(stores):
        store.apply(CohortUpdate("add_members", "vips", "vips", members=(f"{number}",)))
        assert write(store).flush()
    assert in_flagsmith(flagsmith) == {"0": True, "1": True}
    with pytest.raises(ValueError, match="one TraitWriter for an environment at a time"):
        write(stores[0])


def test_next_writer_writes_what_the_last_one_has_left(
    store: SQLiteStore, another: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(status=503)
    change(store, "add_members", "ann")
    writer = write()
    assert flagsmith.wait_for_requests(1)
    assert writer.close(0.05) is False
    assert writer.flush(0.0) is False
    flagsmith.recover()
    assert write(another).flush()
    assert in_flagsmith(flagsmith) == {"ann": True}


# The end of a writer


def test_close_writes_who_has_left_with_a_whole_cohort(
    tmp_path: Path, flagsmith: FlagsmithServer, write: Write
) -> None:
    with SQLiteStore(tmp_path / "slow.db", limits=StoreLimits(swept_rows=1)) as store:
        writer = write(store, writing=fast(interval_seconds=60.0))
        assert writer.flush()
        change(store, "add_members", *"abcdef")
        change(store, "members", "a")
        assert writer.close(60)
    assert [who for who, value in in_flagsmith(flagsmith).items() if value] == ["a"]


def test_flush_in_a_callback_returns_false_at_once(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    flagsmith.fail(times=1, status=503)
    change(store, "add_members", "ann")
    seen = list[bool]()
    writers = list[TraitWriter]()

    def on_error(_: DeliveryError) -> None:
        ready.wait()
        seen.extend([writers[0].flush(60), writers[0].close(60)])

    ready = threading.Event()
    writers.append(write(on_error=on_error))
    ready.set()
    writers[0]._sender.worker.join(monotonic() + 60)
    assert seen == [False, False]


def test_collected_writer_ends_its_thread(store: SQLiteStore, flagsmith: FlagsmithServer) -> None:
    writer = TraitWriter(store, Flagsmith(KEY, flagsmith.api_url))
    [thread] = [thread for thread in threading.enumerate() if thread.name == "flagsync-traits"]
    del writer
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()
    TraitWriter(store, Flagsmith(KEY, flagsmith.api_url)).close()


def test_collected_writer_in_a_forked_child_is_not_its_parents(store: SQLiteStore, write: Write) -> None:
    writer = write()
    module._stop(writer._sender, (os.getpid() + 1, 0))
    change(store, "add_members", "ann")
    assert writer.flush()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python >= 3.12, of forks with threads
def test_forked_child_leaves_the_writing_to_its_parent(
    store: SQLiteStore, flagsmith: FlagsmithServer, write: Write
) -> None:
    writer = write()
    if (child := os.fork()) == 0:
        os._exit(writer.flush() or writer.close())
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    change(store, "add_members", "ann")
    assert writer.flush()


def test_writer_of_another_process_neither_flushes_nor_closes(
    store: SQLiteStore, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = write()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            module, "this_process", lambda: (os.getpid() + 1, 0)
        )  # coverage does not see forked children
        assert (writer.flush(), writer.close()) == (False, False)
    assert writer.flush()


def test_close_does_the_work_itself_where_no_thread_starts_any_more(
    store: SQLiteStore, flagsmith: FlagsmithServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name.startswith("flagsync-"):  # the server needs threads of its own
            raise RuntimeError("can't start new thread at interpreter shutdown")
        start(thread)

    change(store, "add_members", "ann", "bob")
    with monkeypatch.context() as exiting:
        exiting.setattr(threading.Thread, "start", refuse)
        assert TraitWriter(store, Flagsmith(KEY, flagsmith.api_url), writing=fast()).close()
    assert in_flagsmith(flagsmith) == {"ann": True, "bob": True}


# A store that fails


def test_locked_store_is_reported_once_and_waited_for(
    tmp_path: Path, flagsmith: FlagsmithServer, write: Write, logged: Callable[[], list[str]]
) -> None:
    path = tmp_path / "cohorts.db"
    with SQLiteStore(path, limits=StoreLimits(busy_seconds=0.001)) as store:
        change(store, "add_members", "ann")
        lock = sqlite3.connect(path, isolation_level=None)
        lock.execute("BEGIN EXCLUSIVE")
        writer = write(store)
        assert writer.flush(0.3) is False
        lock.close()
        assert writer.flush()
        assert in_flagsmith(flagsmith) == {"ann": True}
        writer.close()
    assert logged() == [
        "The store of cohorts cannot be used (StoreUnavailableError): traits are written later",
        "The store of cohorts is in use again",
    ]


class BrokenLog(ReferenceLog):
    """A log that can do nothing now."""

    def state(self) -> LogState:
        raise StoreUnavailableError("down")

    claim = start = restart = sweep = try_acquire_lease = release_lease = pending = state  # type: ignore[assignment]


class HangingLog(ReferenceLog):
    """A log that does not answer until it may."""

    may_answer = threading.Event()

    def state(self) -> LogState:
        self.may_answer.wait()
        return super().state()


class WithLog(ReferenceStore):
    """A store with logs of a kind."""

    def __init__(self, kind: type[ReferenceLog]) -> None:
        super().__init__()
        self._kind = kind

    def change_log(self, environment: str) -> ReferenceLog:
        return self._kind(self)


def test_broken_store_never_counts_as_written(write: Write) -> None:
    writer = write(WithLog(BrokenLog))
    assert (writer.flush(0.05), writer.close(0.05)) == (False, False)


def test_flush_and_close_keep_their_timeout_while_the_store_hangs(write: Write) -> None:
    began, writer = monotonic(), write(WithLog(HangingLog))
    assert (writer.flush(0.1), writer.close(0.1)) == (False, False)
    assert monotonic() - began < 1
    HangingLog.may_answer.set()


@pytest.mark.parametrize("call", [TraitWriter.stats, TraitWriter.resync])
def test_call_raises_what_the_store_raises(write: Write, call: Callable[[TraitWriter], object]) -> None:
    with pytest.raises(StoreUnavailableError, match="down"):
        call(write(WithLog(BrokenLog)))


# Options


def test_server_side_key_alone_is_for_the_cloud_of_flagsmith(store: SQLiteStore) -> None:
    writer = TraitWriter(store, "ser.key")
    assert writer._list._destination.url == "https://edge.api.flagsmith.com/api/v1/"
    writer.close()


@pytest.mark.parametrize("store", ["cohorts.db", None])
def test_store_without_a_change_log_is_refused(flagsmith: FlagsmithServer, store: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^store must keep a change log, such as flagsync.cohorts.SQLiteStore$"
    ):
        TraitWriter(store, Flagsmith(KEY, flagsmith.api_url))
