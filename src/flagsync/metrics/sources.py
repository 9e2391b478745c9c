"""What is observed: clients, webhooks and trait writers, none of which is kept alive for it."""

import weakref

from flagsync._rules import require, shown
from flagsync.metrics.catalog import METRICS, AnyMetric, Observed, Values

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
        kinds = tuple({metric.of for metric in METRICS})
        require({WRONG.format(shown(source)): isinstance(source, kinds) for source in observed})
        new = (weakref.ref(source) for source in observed)
        alive = (reference for reference in self._references if reference() is not None)
        self._references = (*dict.fromkeys((*alive, *new)),)

    def read(self, metric: AnyMetric) -> Values:
        """Return the values of a metric: those of all objects that have it and that are not garbage-collected."""
        found: dict[str, list[float]] = {}
        for reference in self._references:
            for attribute, value in metric.values(reference()).items():
                found.setdefault(attribute, []).append(value)
        return {attribute: metric.merge(values) for attribute, values in found.items()}
