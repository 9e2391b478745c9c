"""All metrics: what they are called, what they mean, and where their values come from."""

from flagsync._stats import OUTCOMES
from flagsync.cohorts.trait_writer.writer import TraitWriter
from flagsync.cohorts.webhook.app import CohortWebhook
from flagsync.metrics.metric import AnyMetric, ClientNow, Kind, Metric, Values

EXPOSURE_OUTCOMES = tuple(outcome for outcome in OUTCOMES if outcome != "superseded")


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
