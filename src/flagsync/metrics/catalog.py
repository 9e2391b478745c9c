"""The metrics: what they are called, what they mean, and where their values come from.

Names are those of OpenTelemetry, and the names of Prometheus follow from them by OpenTelemetry's rules, so that both
suit one dashboard. https://opentelemetry.io/docs/specs/semconv/general/naming/
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Generic, TypeAlias, TypeGuard, TypeVar

from flagsync._client import FlagSync
from flagsync._stats import OUTCOMES, Stats
from flagsync.cohorts.trait_writer.writer import TraitWriter
from flagsync.cohorts.webhook.app import CohortWebhook

T = TypeVar("T")
Observed: TypeAlias = FlagSync | CohortWebhook | TraitWriter
"""What has metrics."""
Values: TypeAlias = Mapping[str, float]
"""Value of the metric's attribute, or an empty text if it has none -> value of the metric."""
EXPOSURE_OUTCOMES = tuple(outcome for outcome in OUTCOMES if outcome != "superseded")


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


def _updates(now: ClientNow) -> Values:
    return {outcome: getattr(now.stats, outcome) for outcome in (*OUTCOMES, "skipped")}


def _exposures(now: ClientNow) -> Values:
    return {outcome: getattr(now.stats.exposures, outcome) for outcome in (*EXPOSURE_OUTCOMES, "skipped")}


def _pending(now: ClientNow) -> Values:
    return {"update": now.stats.pending, "exposure": now.stats.exposures.pending}


def _capacity(now: ClientNow) -> Values:
    options = now.client._options  # noqa: SLF001 - what only metrics need is nothing that the client offers; so below
    bound = options.max_pending if options.outbox is None else options.tuning.store.max_pending
    return {"update": bound, "exposure": bound}


def _failures(now: ClientNow) -> Values:
    pipelines = now.client._pipelines  # noqa: SLF001
    return {} if pipelines is None else pipelines.get().failures()


def _last_success(now: ClientNow) -> Values:
    return _if_known(now.stats.last_success_at)


def _document_age(now: ClientNow) -> Values:
    return _if_known(now.client._health.refresh.age_seconds())  # noqa: SLF001


def _webhook_calls(webhook: CohortWebhook) -> Values:
    return webhook._receiver.calls.counts()  # noqa: SLF001


def _trait_changes(writer: TraitWriter) -> Values:
    counts = writer._ledger.counts()  # noqa: SLF001 - stats() asks the store
    return {"written": counts["delivered"], "rejected": counts["rejected"]}


def _trait_failures(writer: TraitWriter) -> Values:
    return writer._ledger.failures.counts()  # noqa: SLF001


def _if_known(value: float | None) -> Values:
    return {} if value is None else {"": value}


METRICS: tuple[AnyMetric, ...] = (
    Metric(
        name="flagsync.updates",
        kind=Kind.COUNTER,
        unit="{update}",
        description="Calls whose flags are settled, by what became of them.",
        attribute="outcome",
        of=ClientNow,
        read=_updates,
    ),
    Metric(
        name="flagsync.exposures",
        kind=Kind.COUNTER,
        unit="{exposure}",
        description="Exposures of experiments that are settled, by what became of them.",
        attribute="outcome",
        of=ClientNow,
        read=_exposures,
    ),
    Metric(
        name="flagsync.queue.size",
        kind=Kind.SIZE,
        unit="{message}",
        description="Updates and exposures of this process that are pending.",
        attribute="kind",
        of=ClientNow,
        read=_pending,
    ),
    Metric(
        name="flagsync.queue.capacity",
        kind=Kind.SIZE,
        unit="{message}",
        description="How many may be pending before the oldest are dropped.",
        attribute="kind",
        of=ClientNow,
        read=_capacity,
    ),
    Metric(
        name="flagsync.queue.oldest_age",
        kind=Kind.GAUGE,
        unit="s",
        description="How long the oldest pending message has waited; with an outbox, that of all processes.",
        of=ClientNow,
        read=lambda now: {"": now.stats.oldest_seconds},
        merge=max,
    ),
    Metric(
        name="flagsync.requests",
        kind=Kind.COUNTER,
        unit="{request}",
        description="HTTP requests to Mixpanel.",
        of=ClientNow,
        read=lambda now: {"": now.stats.requests},
    ),
    Metric(
        name="flagsync.request.retries",
        kind=Kind.COUNTER,
        unit="{request}",
        description="HTTP requests to Mixpanel that followed a failed one.",
        of=ClientNow,
        read=lambda now: {"": now.stats.retries},
    ),
    Metric(
        name="flagsync.request.failures",
        kind=Kind.COUNTER,
        unit="{request}",
        description="HTTP requests that Mixpanel did not accept, by HTTP status or by why there was no answer.",
        attribute="error.type",
        of=ClientNow,
        read=_failures,
    ),
    Metric(
        name="flagsync.last_success.timestamp",
        kind=Kind.GAUGE,
        unit="s",
        description="When Mixpanel last accepted a request of this process, in seconds since 1970.",
        of=ClientNow,
        read=_last_success,
        merge=min,
    ),
    Metric(
        name="flagsync.document.age",
        kind=Kind.GAUGE,
        unit="s",
        description="How long ago Flagsmith's environment document was refreshed, under local evaluation.",
        of=ClientNow,
        read=_document_age,
        merge=max,
    ),
    Metric(
        name="flagsync.webhook.calls",
        kind=Kind.COUNTER,
        unit="{call}",
        description="Calls of the cohort webhook, by the HTTP status of the response.",
        attribute="http.response.status_code",
        of=CohortWebhook,
        read=_webhook_calls,
    ),
    Metric(
        name="flagsync.trait.changes",
        kind=Kind.COUNTER,
        unit="{change}",
        description="Traits that this process has written to Flagsmith, or that were rejected.",
        attribute="outcome",
        of=TraitWriter,
        read=_trait_changes,
    ),
    Metric(
        name="flagsync.trait.request.failures",
        kind=Kind.COUNTER,
        unit="{request}",
        description="Batches of traits that Flagsmith did not accept, by HTTP status or by why there was no answer.",
        attribute="error.type",
        of=TraitWriter,
        read=_trait_failures,
    ),
)
