"""What is observed: clients, webhooks and trait writers, none of which is kept alive for it."""

import weakref
from collections.abc import Iterable

from flagsync._rules import require, shown
from flagsync.metrics.catalog import METRICS
from flagsync.metrics.metric import AnyMetric, Observed, Readable, Values, readable

WRONG = "metrics are those of a FlagSync, a CohortWebhook or a TraitWriter, not of {}"


class Sources:
    """The objects whose metrics are collected together. Any thread may call."""

    def __init__(self) -> None:
        self._references: tuple[weakref.ref[Observed], ...] = ()

    def add(self, *observed: Observed) -> None:
        """Add objects, each once.

        Raises:
            ValueError: One of them has no metrics.
        """
        require({WRONG.format(shown(source)): isinstance(source, Observed) for source in observed})
        new = (weakref.ref(source) for source in observed)
        alive = (reference for reference in self._references if reference() is not None)
        self._references = (*dict.fromkeys((*alive, *new)),)

    def metrics(self) -> list[AnyMetric]:
        """Return the metrics that these objects have."""
        now = self._now()
        return [metric for metric in METRICS if any(map(metric.is_of, now))]

    def read(self, *metrics: AnyMetric) -> list[Values]:
        """Return the values of each metric: those of all objects that have it and that are not garbage-collected."""
        now = self._now()
        return [_merged(metric, now) for metric in metrics]

    def _now(self) -> list[Readable]:
        return [readable(source) for reference in self._references if (source := reference()) is not None]


def _merged(metric: AnyMetric, sources: Iterable[Readable]) -> Values:
    found: dict[str, list[float]] = {}
    for source in sources:
        for attribute, value in metric.values(source).items():
            found.setdefault(attribute, []).append(value)
    return {attribute: metric.merge(values) for attribute, values in found.items()}
