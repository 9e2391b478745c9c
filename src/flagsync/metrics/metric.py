"""A metric: how it behaves, what has it, and how its values are read.

Names are those of OpenTelemetry, and the names of Prometheus follow from them by OpenTelemetry's rules, so that both
suit one dashboard. https://opentelemetry.io/docs/specs/semconv/general/naming/
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Generic, TypeAlias, TypeGuard, TypeVar

from flagsync._client import FlagSync
from flagsync._stats import Stats
from flagsync.cohorts.trait_writer.writer import TraitWriter
from flagsync.cohorts.webhook.app import CohortWebhook

T = TypeVar("T")
Observed: TypeAlias = FlagSync | CohortWebhook | TraitWriter
"""What has metrics."""
Values: TypeAlias = Mapping[str, float]
"""Value of the metric's attribute, or an empty text if it has none -> value of the metric."""


class ClientNow:
    """A client as one collection finds it: its counts are read once, so that they agree.

    Args:
        client: The client.
    """

    def __init__(self, client: FlagSync) -> None:
        self.client = client

    @cached_property
    def stats(self) -> Stats:
        """Its counts."""
        return self.client.stats()


Readable: TypeAlias = ClientNow | CohortWebhook | TraitWriter
"""What has values, for one collection."""


def readable(observed: Observed) -> Readable:
    """Return what the values of an object are read from, in one collection."""
    return ClientNow(observed) if isinstance(observed, FlagSync) else observed


class Kind(Enum):
    """How a metric behaves."""

    COUNTER = 1  # it never falls while the process runs
    SIZE = 2  # it rises and falls, and those of all processes can be added up
    GAUGE = 3  # it rises and falls, and a sum has no meaning


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric(Generic[T]):
    """One metric.

    Attributes:
        name: Its name in OpenTelemetry.
        kind: How it behaves.
        unit: The unit, as UCUM has it; or, in braces, what is counted.
        description: What it means.
        attribute: The attribute that tells its values apart; empty if it has one value.
        of: The type of what has it.
        read: What has it -> its values. Does no I/O.
        merge: Makes one value of those of several objects.
    """

    name: str
    kind: Kind
    unit: str
    description: str
    attribute: str = ""
    of: type[T]
    read: Callable[[T], Values]
    merge: Callable[[Iterable[float]], float] = sum

    def is_of(self, source: Readable) -> TypeGuard[T]:
        """Return whether an object has this metric."""
        return isinstance(source, self.of)

    def values(self, source: Readable) -> Values:
        """Return the values of an object; none if it does not have this metric."""
        return self.read(source) if self.is_of(source) else {}

    @property
    def prometheus_name(self) -> str:
        """The name in Prometheus, to which its client adds ``_total`` for a counter."""
        return self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "")

    @property
    def label(self) -> str:
        """The attribute's name in Prometheus."""
        return self.attribute.replace(".", "_")


AnyMetric: TypeAlias = Metric[ClientNow] | Metric[CohortWebhook] | Metric[TraitWriter]
