"""Metrics in Prometheus, collected by its own client."""

import gc
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flagsmith import Flagsmith
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import flagsync.metrics as module
from flagsync import FlagSync, Stats
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.metrics import PrometheusCollector
from flagsync.testing import MixpanelServer
from tests.support.prompt import PromptFlagSync

Build = Callable[..., FlagSync]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def webhook(tmp_path: Path) -> Iterator[CohortWebhook]:
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        yield CohortWebhook(store, credentials=None)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return what Prometheus reads: a name with labels -> a value."""
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_client_is_collected(registry: CollectorRegistry, offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=1, status=503)
    with PromptFlagSync(offline, "token", mixpanel_url=mixpanel.url, flush_interval_seconds=0.01) as client:
        registry.register(PrometheusCollector(client))
        client.get_identity_flags("ann")
        assert client.flush()
        found = samples(registry)
    assert found["flagsync_updates_total{outcome=delivered}"] == 1
    assert found["flagsync_request_failures_total{error_type=503}"] == 1
    assert found["flagsync_queue_oldest_age_seconds"] == 0
    assert found["flagsync_queue_capacity{kind=update}"] == 50_000
    assert found["flagsync_last_success_timestamp_seconds"] == client.stats().last_success_at


def test_scrape_reads_the_counts_of_a_client_once(
    registry: CollectorRegistry, flagsync: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, calls, stats = flagsync(), list[FlagSync](), FlagSync.stats

    def counted(self: FlagSync) -> Stats:
        calls.append(self)
        return stats(self)

    monkeypatch.setattr(FlagSync, "stats", counted)
    registry.register(PrometheusCollector(client))
    assert calls == []
    samples(registry)
    assert calls == [client]


def test_names_end_in_total_and_in_units(registry: CollectorRegistry, flagsync: Build) -> None:
    registry.register(PrometheusCollector(flagsync()))
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        assert family.documentation
        is_total = [sample.name.endswith("_total") for sample in family.samples]
        assert {*is_total} <= {family.type == "counter"}


def test_collector_and_registry_find_two_clients_that_have_one_name(
    registry: CollectorRegistry, flagsync: Build, webhook: CohortWebhook
) -> None:
    registry.register(PrometheusCollector(flagsync()))
    registry.register(PrometheusCollector(webhook))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(PrometheusCollector(flagsync()))


def test_several_clients_and_a_webhook_have_one_collector(
    registry: CollectorRegistry, flagsync: Build, webhook: CohortWebhook
) -> None:
    clients = [flagsync(), flagsync()]
    registry.register(PrometheusCollector(*clients, webhook))
    webhook.wsgi({"REQUEST_METHOD": "GET"}, lambda *_: None)
    for client in clients:
        client.get_identity_flags("ann")
        assert client.flush()
    found = samples(registry)
    assert found["flagsync_updates_total{outcome=delivered}"] == 2
    assert found["flagsync_webhook_calls_total{http_response_status_code=405}"] == 1


def test_registered_client_is_not_kept_alive(registry: CollectorRegistry, offline: Flagsmith) -> None:
    client = FlagSync(offline, "token")
    registry.register(PrometheusCollector(client))
    assert samples(registry)
    del client
    gc.collect()
    assert samples(registry) == {}


def test_what_has_no_metrics_is_refused(offline: Flagsmith) -> None:
    with pytest.raises(ValueError, match="not of a value of type Flagsmith"):
        PrometheusCollector(offline)  # type: ignore[arg-type]


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.metrics_core", None)
    monkeypatch.delitem(sys.modules, "flagsync.metrics.prometheus")
    with pytest.raises(ImportError, match=r"pip install 'flagsync\[prometheus\]'"):
        importlib.import_module("flagsync.metrics.prometheus")


def test_module_lists_its_names_before_they_are_used() -> None:
    assert {"PrometheusCollector", "observe"} <= {*dir(module)}
