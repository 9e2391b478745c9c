"""Metrics for OpenTelemetry; needs ``flagsync[otel]``."""

import weakref
from collections.abc import Callable, Iterator

from flagsync import __version__
from flagsync.metrics.catalog import METRICS
from flagsync.metrics.metric import AnyMetric, Kind, Observed
from flagsync.metrics.sources import Sources

try:
    from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter_provider
except ImportError as error:
    raise ImportError(
        f"flagsync.metrics.observe needs OpenTelemetry's API ({error}): pip install 'flagsync[otel]'",
        name=error.name,
    ) from error

# Instruments can be made only once, and never be removed.
_observed: weakref.WeakKeyDictionary[MeterProvider, Sources] = weakref.WeakKeyDictionary()


def observe(client: Observed, meter_provider: MeterProvider | None = None) -> None:
    """Have OpenTelemetry collect metrics, until the client is garbage-collected.

    The values of several clients with one provider are merged: the sum of counts and sizes, the largest age, and the
    earliest time of a last success.

    Args:
        client: A ``FlagSync``, a ``CohortWebhook`` or a ``TraitWriter``; call this once for each.
        meter_provider: The provider that collects them; by default the global one.

    Raises:
        ValueError: The object has no metrics.
    """
    new = Sources()
    new.add(client)
    provider = get_meter_provider() if meter_provider is None else meter_provider
    sources = _observed.setdefault(provider, new)
    sources.add(client)
    if sources is new:
        meter = provider.get_meter("flagsync", __version__)
        for metric in METRICS:
            _make(meter, metric.kind)(
                metric.name, [_callback(sources, metric)], unit=metric.unit, description=metric.description
            )


def _make(meter: Meter, kind: Kind) -> Callable[..., object]:
    """Return what makes instruments of a kind."""
    return {
        Kind.COUNTER: meter.create_observable_counter,
        Kind.SIZE: meter.create_observable_up_down_counter,
        Kind.GAUGE: meter.create_observable_gauge,
    }[kind]


def _callback(sources: Sources, metric: AnyMetric) -> Callable[[CallbackOptions], Iterator[Observation]]:
    def values(_: CallbackOptions) -> Iterator[Observation]:
        [found] = sources.read(metric)
        for attribute, value in found.items():
            yield Observation(value, {metric.attribute: attribute} if metric.attribute else {})

    return values
