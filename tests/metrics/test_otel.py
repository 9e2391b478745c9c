"""Metrics in OpenTelemetry, collected by its own SDK."""

import gc
import importlib
import sys
from collections.abc import Callable
from typing import Any

import pytest
from flagsmith import Flagsmith
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

import flagsync as package
from flagsync import FlagSync
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.metrics import observe
from flagsync.metrics.catalog import METRICS
from flagsync.metrics.metric import ClientNow
from flagsync.testing import MixpanelServer
from tests.support.prompt import PromptFlagSync

Build = Callable[..., FlagSync]
Points = dict[str, dict[Any, float]]


class Collected:
    """A meter provider, and what it collects."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])

    def metrics(self) -> dict[str, Any]:
        """Return the metrics by name, of the only scope there is."""
        data = self.reader.get_metrics_data()
        scopes = (
            [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        )
        assert {(scope.scope.name, scope.scope.version) for scope in scopes} <= {
            ("flagsync", package.__version__)
        }
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self) -> Points:
        """Return the values of each metric, by its attributes."""
        return {
            name: {tuple(point.attributes.items()): point.value for point in metric.data.data_points}
            for name, metric in self.metrics().items()
        }


@pytest.fixture
def collected() -> Collected:
    return Collected()


def test_client_is_observed(collected: Collected, offline: Flagsmith, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=1, status=503)
    with PromptFlagSync(offline, "token", mixpanel_url=mixpanel.url, flush_interval_seconds=0.01) as client:
        observe(client, collected.provider)
        client.get_identity_flags("ann")
        assert client.flush()
        points = collected.points()
    assert points["flagsync.updates"][("outcome", "delivered"),] == 1
    assert points["flagsync.request.failures"] == {(("error.type", "503"),): 1}
    assert points["flagsync.queue.oldest_age"] == {(): 0.0}
    assert points["flagsync.queue.size"] == {(("kind", "update"),): 0, (("kind", "exposure"),): 0}


def test_instruments_have_kinds_units_and_descriptions(
    collected: Collected, flagsync: Build, offline: Flagsmith
) -> None:
    client = flagsync()
    offline.enable_local_evaluation = True
    observe(client, collected.provider)
    client.get_identity_flags("ann")
    assert client.flush()
    metrics = collected.metrics()
    assert {metric.name: (metric.unit, metric.description) for metric in metrics.values()} == {
        metric.name: (metric.unit, metric.description)
        for metric in METRICS
        if metric.of is ClientNow and metric.name != "flagsync.request.failures"
    }
    kinds = {
        name: (type(metric.data).__name__, getattr(metric.data, "is_monotonic", None))
        for name, metric in metrics.items()
    }
    assert kinds["flagsync.updates"] == ("Sum", True)
    assert kinds["flagsync.queue.size"] == ("Sum", False)
    assert kinds["flagsync.document.age"] == ("Gauge", None)


def test_several_clients_of_one_provider_are_all_observed(collected: Collected, flagsync: Build) -> None:
    clients = [flagsync(), flagsync()]
    for client in clients:
        observe(client, collected.provider)
        client.get_identity_flags("ann")
        assert client.flush()
    assert collected.points()["flagsync.updates"][("outcome", "delivered"),] == 2


def test_webhook_is_observed_without_a_client(collected: Collected, tmp_path: Any) -> None:
    with SQLiteStore(tmp_path / "cohorts.db") as store:
        webhook = CohortWebhook(store, credentials=None)
        observe(webhook, collected.provider)
        webhook.wsgi({"REQUEST_METHOD": "GET"}, lambda *_: None)
    assert collected.points() == {"flagsync.webhook.calls": {(("http.response.status_code", "405"),): 1}}


def test_observed_client_is_not_kept_alive(collected: Collected, offline: Flagsmith) -> None:
    client = FlagSync(offline, "token")
    observe(client, collected.provider)
    assert collected.points()
    del client
    gc.collect()
    assert collected.points() == {}


def test_global_provider_is_the_default(collected: Collected, flagsync: Build, monkeypatch: Any) -> None:
    monkeypatch.setattr("flagsync.metrics.otel.get_meter_provider", lambda: collected.provider)
    client = flagsync()
    observe(client)
    assert "flagsync.updates" in collected.points()


def test_what_has_no_metrics_is_refused_and_not_observed(collected: Collected) -> None:
    with pytest.raises(ValueError, match="not of a value of type object"):
        observe(object(), collected.provider)  # type: ignore[arg-type]
    assert collected.metrics() == {}


def test_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.delitem(sys.modules, "flagsync.metrics.otel")
    with pytest.raises(ImportError, match=r"pip install 'flagsync\[otel\]'"):
        importlib.import_module("flagsync.metrics.otel")
