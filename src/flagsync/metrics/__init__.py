"""Metrics of clients, cohort webhooks and trait writers, for OpenTelemetry and Prometheus.

    flagsync.metrics.observe(client)                                 flagsync[otel]
    REGISTRY.register(flagsync.metrics.PrometheusCollector(client))  flagsync[prometheus]

``metric`` says what a metric is, ``catalog`` lists all, and ``sources`` holds what is observed. Guarantee: no metric
names a user; collecting does no I/O, holds up no call that is not dropped, and keeps nothing alive. Boundary: the
metrics are those of this process.
"""

from typing import TYPE_CHECKING

from flagsync._lazy import importer

if TYPE_CHECKING:
    from flagsync.metrics.otel import observe
    from flagsync.metrics.prometheus import PrometheusCollector

__all__ = ["PrometheusCollector", "observe"]

_IMPORTED_WHEN_USED = {
    "PrometheusCollector": "flagsync.metrics.prometheus",
    "observe": "flagsync.metrics.otel",
}

if not TYPE_CHECKING:  # pragma: no branch - with it, type checkers would accept any name
    __getattr__, __dir__ = importer(__name__, _IMPORTED_WHEN_USED)
