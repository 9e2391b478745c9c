"""What a store in PostgreSQL does when its server is not there yet, ends, stops, or may not be written to."""

from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest
from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, PostgresStore, StoreUnavailableError
from flagsync.cohorts.postgres.schema import LOCK
from flagsync.cohorts.postgres.store import StoreLimits
from tests.support.postgres import PostgresServer, postgres_server, schema_of
from tests.support.updates import KEY, add, after, drain, page
from tests.support.webhook_calls import PASSWORD, USER, basic, call, over_wsgi

JSON = {"Content-Type": "application/json"}
HASTY = StoreLimits(busy_seconds=0.3, work_seconds=0.6)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server that the tests of this module end and pause, and leave running."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def store(server: PostgresServer, tmp_path: Path) -> Iterator[PostgresStore]:
    with PostgresStore(server.url(), schema=schema_of(tmp_path), limits=HASTY) as store:
        yield store


def unavailable(use: Callable[[], object]) -> str:
    """Use a store that cannot be used; return what the error says."""
    with pytest.raises(StoreUnavailableError) as error:
        use()
    assert "s3cret" not in f"{error.value!r} {error.value.__cause__!r}"
    return str(error.value)


def seconds(use: Callable[[], object]) -> float:
    """Return how long it takes to learn that a store cannot be used."""
    began = monotonic()
    unavailable(use)
    return monotonic() - began


def post(webhook: CohortWebhook, body: bytes) -> int:
    """Call a webhook as Mixpanel does; return the status."""
    [reply] = over_wsgi(webhook, "POST", {"authorization": basic(), **JSON}, [body])
    return reply.status


def test_server_that_is_not_there_yet_is_no_error_of_the_constructor(
    server: PostgresServer, tmp_path: Path
) -> None:
    server.stop()
    with PostgresStore(server.url(), schema=schema_of(tmp_path)) as store:
        for use in (lambda: store.apply(add("ann")), store.version, lambda: store.traits_of(["ann"])):
            assert "Connection refused" in unavailable(use)
        server.start()
        assert after(store, add("ann")) == ["ann"]


def test_server_that_is_killed_keeps_what_was_applied(server: PostgresServer, store: PostgresStore) -> None:
    log = store.change_log("production")
    log.start()
    after(store, add("old"), page("s", 1, 2, "ann"))
    assert log.try_acquire_lease()
    changes = log.claim(10)
    server.kill()
    for use in (store.version, lambda: log.settle(changes), log.state, lambda: [*store.members("7")]):
        unavailable(use)
    server.start()
    assert after(store, page("s", 2, 2, "bob")) == ["ann", "bob"]
    assert [change.is_unsure for change in log.claim(2)] == [True, True]
    assert dict(drain(log)) == {"old": False, "ann": True, "bob": True}


def test_server_that_was_restarted_costs_no_call(server: PostgresServer, store: PostgresStore) -> None:
    store.apply(add("ann"))
    server.stop()
    server.start()
    assert store.traits_of(["ann"]) == {"ann": {KEY: True}}
    server.end_sessions()
    assert after(store, add("bob")) == ["ann", "bob"]


def test_server_that_stops_ends_each_call_in_time(server: PostgresServer, store: PostgresStore) -> None:
    log = store.change_log("production")
    log.start()
    store.apply(add("ann"))
    uses: list[Callable[[], object]] = [
        store.version,
        lambda: store.traits_of(["ann"]),
        store.cohorts,
        lambda: store.apply(add("bob")),
        log.try_acquire_lease,
        log.state,
    ]
    patient = StoreLimits(busy_seconds=0.3, work_seconds=60.0)
    with PostgresStore(server.url(), schema=store._schema, limits=patient) as new, server.paused():
        for use in [*uses, new.version]:  # a slow machine gets several chances
            assert any(seconds(use) < 1.5 for _ in range(5))
        assert "the server does not answer in time" in unavailable(new.version)
    assert after(store, add("eve")) in (["ann", "eve"], ["ann", "bob", "eve"])


def test_server_that_is_read_only_is_read(server: PostgresServer, store: PostgresStore) -> None:
    log = store.change_log("production")
    log.start()
    store.apply(add("ann"))
    server.stop()
    server.start(default_transaction_read_only="on")
    try:
        assert "read-only" in unavailable(lambda: store.apply(add("bob")))
        assert "read-only" in unavailable(log.try_acquire_lease)
        assert store.traits_of(["ann"]) == {"ann": {KEY: True}}
        with PostgresStore(server.url(), schema=store._schema) as other:
            assert [*other.members("7")] == ["ann"]
    finally:
        server.stop()
        server.start()
    assert after(store, add("bob")) == ["ann", "bob"]


def test_process_that_keeps_its_lock_holds_up_no_reader_and_a_writer_for_a_moment(
    server: PostgresServer, store: PostgresStore
) -> None:
    store.apply(add("ann"))
    with PostgresStore(server.url(), schema=store._schema) as other, other._database.work() as transaction:
        transaction.rows(LOCK)
        assert "another process kept its lock for too long" in unavailable(lambda: store.apply(add("bob")))
        assert store.traits_of(["ann"]) == {"ann": {KEY: True}}
    assert after(store, add("bob")) == ["ann", "bob"]


def test_process_that_stops_in_the_middle_of_a_page_loses_its_lock(
    server: PostgresServer, store: PostgresStore
) -> None:
    def stop_in_the_middle() -> None:
        with store._database.work() as stopped:
            stopped.rows(LOCK)
            with PostgresStore(server.url(), schema=store._schema) as patient:
                assert after(patient, add("bob")) == ["ann", "bob"]
            stopped.rows("SELECT 1")

    store.apply(add("ann"))
    assert "idle-in-transaction timeout" in unavailable(stop_in_the_middle)


def test_evaluation_does_not_wait_for_a_server_that_stops(
    server: PostgresServer,
    store: PostgresStore,
    flagsync: Callable[..., FlagSync],
    offline: Flagsmith,
    logged: Callable[[], list[str]],
) -> None:
    store.apply(add("ann"))
    client = flagsync(cohorts=store)
    client.get_identity_flags("ann")
    with server.paused():
        began = monotonic()
        for _ in range(5):
            client.get_identity_flags("bob")
        assert monotonic() - began < 1.0
    assert sum("The store of cohorts cannot be used" in line for line in logged()) == 1
    assert "s3cret" not in "".join(logged())


def test_webhook_asks_for_the_same_call_later_while_the_server_is_away(
    server: PostgresServer, store: PostgresStore
) -> None:
    webhook = CohortWebhook(store, credentials=[(USER, PASSWORD)])
    server.stop()
    try:
        assert post(webhook, call("add_members", "ann")) == 503
    finally:
        server.start()
    assert post(webhook, call("add_members", "ann")) == 200
    assert [*store.members("7")] == ["ann"]
