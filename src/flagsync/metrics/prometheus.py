"""Metrics for Prometheus; needs ``flagsync[prometheus]``."""

from collections.abc import Iterator

from flagsync.metrics.metric import Kind, Observed
from flagsync.metrics.sources import Sources

try:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ImportError(
        f"flagsync.metrics.PrometheusCollector needs Prometheus's client ({error}): "
        "pip install 'flagsync[prometheus]'",
        name=error.name,
    ) from error


class PrometheusCollector(Collector):
    """Collects metrics for a registry of ``prometheus_client``, until what it observes is garbage-collected.

        REGISTRY.register(PrometheusCollector(client))

    The values of several clients are merged: the sum of counts and sizes, the largest age, and the earliest time of a
    last success.

    Args:
        observed: Each ``FlagSync``, ``CohortWebhook`` and ``TraitWriter`` whose metrics are collected.

    Raises:
        ValueError: One of them has no metrics.
    """

    def __init__(self, *observed: Observed) -> None:
        self._sources = Sources()
        self._sources.add(*observed)
        self._metrics = self._sources.metrics()

    def describe(self) -> Iterator[Metric]:
        """Return the metrics without values, so that a registry finds two that have one name."""
        return self._families(with_values=False)

    def collect(self) -> Iterator[Metric]:
        """Return the metrics with their values now."""
        return self._families(with_values=True)

    def _families(self, *, with_values: bool) -> Iterator[Metric]:
        read = self._sources.read(*self._metrics) if with_values else [{}] * len(self._metrics)
        for metric, values in zip(self._metrics, read, strict=True):
            make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
            labels = [metric.label] if metric.label else []
            family = make(metric.prometheus_name, metric.description, labels=labels)
            for attribute, value in values.items():
                family.add_metric([attribute] if labels else [], value)
            yield family
