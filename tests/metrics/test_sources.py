"""What the metrics are, whoever collects them."""

import gc
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, time
from typing import Any

import pytest
from flagsmith import Flagsmith

from flagsync import FlagSync
from flagsync.cohorts import CohortUpdate, CohortWebhook, SQLiteStore, StoreUnavailableError, TraitWriter
from flagsync.cohorts.trait_writer.writer import Writing
from flagsync.metrics.catalog import METRICS
from flagsync.metrics.metric import Kind
from flagsync.metrics.sources import Sources
from flagsync.testing import MixpanelServer
from tests.support.flagsmith_server import KEY, FlagsmithServer
from tests.support.forks import in_child
from tests.support.prompt import SOON, PromptFlagSync
from tests.support.webhook_calls import ANN, HEADERS, INTERFACES, PASSWORD, USER

Build = Callable[..., FlagSync]
Read = Callable[[str], dict[str, float]]


@pytest.fixture
def sources() -> Sources:
    return Sources()


@pytest.fixture
def read(sources: Sources) -> Read:
    """Reads the values of a metric."""
    metrics = {metric.name: metric for metric in METRICS}
    return lambda name: {**sources.read(metrics[name])[0]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield store


def test_names_follow_the_conventions_of_opentelemetry() -> None:
    assert all(re.fullmatch(r"flagsync(\.[a-z]+(_[a-z]+)*)+", metric.name) for metric in METRICS)
    names = {metric.name for metric in METRICS}
    assert len(names) == len(METRICS)
    assert [name for name in names if any(other.startswith(f"{name}.") for other in names)] == []
    assert {metric.unit for metric in METRICS if not metric.unit.startswith("{")} == {"s"}


def test_metrics_that_no_sum_has_a_meaning_of_are_merged_otherwise() -> None:
    assert {metric.name for metric in METRICS if metric.merge is not sum} == {
        metric.name for metric in METRICS if metric.kind is Kind.GAUGE
    }


def test_updates_and_exposures_are_counted_by_outcome(sources: Sources, read: Read, flagsync: Build) -> None:
    client = flagsync()
    sources.add(client)
    client.get_identity_flags("ann")
    client.get_identity_flags("bob", transient=True)
    client.get_experiment_flag("mv_keyed", "cid")
    assert client.flush()
    updates, exposures = read("flagsync.updates"), read("flagsync.exposures")
    assert {name: count for name, count in updates.items() if count} == {"delivered": 2, "skipped": 1}
    assert {name: count for name, count in exposures.items() if count} == {"delivered": 1}
    assert "superseded" not in exposures
    assert read("flagsync.requests") == {"": client.stats().requests}


def test_queue_has_a_size_a_capacity_and_an_age(
    sources: Sources, read: Read, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(status=503)
    client = flagsync(max_pending=70, flush_interval_seconds=0.01)
    sources.add(client)
    began = monotonic()
    client.get_experiment_flag("mv_keyed", "ann")
    client.get_identity_flags("bob")
    assert client.flush(0.1) is False
    assert read("flagsync.queue.size") == {"update": 2, "exposure": 1}
    assert read("flagsync.queue.capacity") == {"update": 70, "exposure": 70}
    assert 0.1 <= read("flagsync.queue.oldest_age")[""] <= monotonic() - began


def test_capacity_with_an_outbox_is_that_of_the_outbox(
    sources: Sources, read: Read, flagsync: Build, tmp_path: Path
) -> None:
    sources.add(flagsync(outbox=tmp_path / "outbox.db"))
    assert read("flagsync.queue.capacity") == {"update": 1_000_000, "exposure": 1_000_000}


def test_failures_are_counted_by_kind_and_the_last_success_is_known(
    sources: Sources, read: Read, offline: Flagsmith, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(times=1, status=503)
    began = time()
    with PromptFlagSync(offline, "token", mixpanel_url=mixpanel.url, flush_interval_seconds=0.01) as client:
        sources.add(client)
        assert (read("flagsync.request.failures"), read("flagsync.last_success.timestamp")) == ({}, {})
        client.get_identity_flags("ann")
        assert client.flush()
        assert read("flagsync.request.failures") == {"503": 1}
        assert read("flagsync.request.retries") == {"": 1}
        assert began <= read("flagsync.last_success.timestamp")[""] <= time()


def test_document_has_an_age_under_local_evaluation_only(
    sources: Sources, read: Read, flagsync: Build, offline: Flagsmith
) -> None:
    client = flagsync()
    sources.add(client)
    assert read("flagsync.document.age") == {}
    offline.enable_local_evaluation = True
    assert 0 <= read("flagsync.document.age")[""] < 10


def test_client_that_mirrors_nothing_has_metrics(sources: Sources, read: Read, offline: Flagsmith) -> None:
    client = FlagSync(offline, None)
    sources.add(client)
    assert {*read("flagsync.updates").values()} == {0}
    assert read("flagsync.request.failures") == {}


@pytest.mark.parametrize("interface", INTERFACES)
def test_webhook_calls_are_counted_by_the_status_of_the_response(
    interface: str, sources: Sources, read: Read, store: SQLiteStore
) -> None:
    webhook = CohortWebhook(store, credentials=[(USER, PASSWORD)])
    sources.add(webhook)
    for headers, body in ((HEADERS, ANN), (HEADERS, ANN), ({}, ANN), (HEADERS, b"{}")):
        lower = {name.lower(): value for name, value in headers.items()}
        INTERFACES[interface](webhook, "POST", lower, [body])
    assert read("flagsync.webhook.calls") == {"200": 2, "401": 1, "400": 1}


def test_webhook_call_that_cannot_be_stored_is_counted(sources: Sources, read: Read) -> None:
    class Broken:
        def apply(self, update: CohortUpdate) -> None:
            raise StoreUnavailableError

    webhook = CohortWebhook(Broken(), credentials=None)
    sources.add(webhook)
    INTERFACES["wsgi"](webhook, "POST", HEADERS, [ANN])
    assert read("flagsync.webhook.calls") == {"503": 1}


def test_trait_changes_and_failures_are_counted(sources: Sources, read: Read, store: SQLiteStore) -> None:
    INTERFACES["wsgi"](CohortWebhook(store, credentials=None), "POST", HEADERS, [ANN])
    with FlagsmithServer() as server:
        server.fail(times=1, status=503)
        flagsmith = Flagsmith(KEY, api_url=server.api_url)
        with TraitWriter(store, flagsmith, writing=Writing(backoff=SOON)) as writer:
            sources.add(writer)
            assert writer.flush()
            assert read("flagsync.trait.changes") == {"written": 1, "rejected": 0}
            assert read("flagsync.trait.request.failures") == {"503": 1}


def test_values_of_several_clients_are_merged(
    sources: Sources, read: Read, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    one, other = flagsync(), flagsync(max_pending=1)
    sources.add(one)
    sources.add(other, one)  # once is enough
    for client in (one, other):
        client.get_identity_flags("ann")
        assert client.flush()
    assert read("flagsync.updates")["delivered"] == 2
    assert read("flagsync.queue.capacity")["update"] == 50_001
    assert read("flagsync.last_success.timestamp") == {"": one.stats().last_success_at}


def test_client_is_not_kept_alive_by_its_metrics(sources: Sources, read: Read, offline: Flagsmith) -> None:
    client = FlagSync(offline, "token")
    sources.add(client)
    del client
    gc.collect()
    assert read("flagsync.updates") == {}
    another = FlagSync(offline, "token")
    sources.add(another)
    assert len(sources._references) == 1


def test_child_of_a_fork_has_metrics_of_its_own(sources: Sources, read: Read, flagsync: Build) -> None:
    client = flagsync()
    sources.add(client)
    client.get_identity_flags("ann")
    assert client.flush()
    assert in_child(lambda: {*read("flagsync.updates").values()} == {0})
    assert read("flagsync.updates")["delivered"] == 1


@pytest.mark.parametrize("wrong", [None, "client", FlagSync])
def test_what_has_no_metrics_is_refused(wrong: Any, sources: Sources) -> None:
    with pytest.raises(
        ValueError, match="metrics are those of a FlagSync, a CohortWebhook or a TraitWriter, not"
    ):
        sources.add(wrong)


def test_no_value_and_no_attribute_holds_a_user_or_a_token(
    sources: Sources, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    mixpanel.fail(times=1, status=400, body="ann")
    client = flagsync(flush_interval_seconds=0.01)
    sources.add(client)
    client.get_experiment_flag("mv_keyed", "ann")
    client.get_identity_flags("bob")
    assert client.flush()
    attributes = {attribute for values in sources.read(*METRICS) for attribute in values}
    assert {name for name in attributes if not name.isdigit()} <= {
        *("delivered", "unchanged", "superseded", "dropped", "rejected", "skipped"),
        *("update", "exposure", "no_answer", "configuration", ""),
    }


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_collecting_waits_for_no_lock_of_an_outbox_that_hangs(
    kind: str, sources: Sources, read: Read, flagsync: Build, tmp_path: Path
) -> None:
    client = flagsync(outbox=tmp_path / "outbox.db" if kind == "file" else None)
    sources.add(client)
    client.get_identity_flags("ann")
    assert client.flush()
    assert client._pipelines is not None
    outbox: Any = client._pipelines.get()._outbox
    memory = getattr(outbox, "_memory", outbox)
    collected = list[object]()

    def collect() -> None:
        collected.extend(sources.read(*METRICS))

    with memory._lock, getattr(outbox, "_io", memory._lock):
        thread = threading.Thread(target=collect)
        thread.start()
        thread.join(5)
        assert len(collected) == len(METRICS)


def test_collecting_while_updates_are_taken_costs_them_nothing(
    sources: Sources, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=0.001)
    sources.add(client)
    for number in range(200):
        client.get_identity_flags(f"user_{number}")
        for metric in METRICS:
            sources.read(metric)
    assert client.flush()
    assert client.stats().delivered == len(mixpanel.profiles) == 200
