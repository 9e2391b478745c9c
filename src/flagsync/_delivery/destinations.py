"""The health of each destination: whether it rests, how often it failed, and what was reported.

Guarantee: the failures of one destination do not affect another one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from flagsync._clock import monotonic
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.bisection import Bisection
from flagsync._outbox.contract import Destination, Message
from flagsync._recent import Recent
from flagsync._report import Outage, Reporter
from flagsync.exceptions import DeliveryError

MAX_DOUBLINGS = 10
MAX_REFUSED = 10_000  # messages of which it is remembered that they were refused alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long a failing destination is left alone; https://developer.mixpanel.com/reference/import-events.

    Attributes:
        first_seconds: The pause after the first failure. Each further failure in a row doubles it.
        max_seconds: The longest pause. It is used at once where a person must act.
        jitter: The least and the most that is added at random, as multiples of ``first_seconds``.
        closing_divisor: A client that closes has less time, and divides ``first_seconds`` by this.
    """

    first_seconds: float = 2.0
    max_seconds: float = 60.0
    jitter: tuple[float, float] = (0.5, 2.5)
    closing_divisor: float = 8.0

    def seconds(self, answer: Answer, failures: int, *, is_closing: bool = False) -> float:
        """Return how long to wait after so many failures in a row."""
        first = self.first_seconds / (self.closing_divisor if is_closing else 1)
        doubled = min(first * 2 ** min(failures - 1, MAX_DOUBLINGS), self.max_seconds)
        wait = self.max_seconds if answer.outcome is Outcome.MISCONFIGURED else doubled
        return (answer.retry_after_seconds or wait) + first * random.uniform(*self.jitter)  # noqa: S311 - no secret


class Health:
    """The health of one destination.

    Attributes:
        failures: Failures in a row.
        rests_until: When to try again: ``time.monotonic()``.
        has_accepted: Whether it accepted something since it last refused a whole batch.
        is_suspect: Whether it has refused a whole batch, and another part of the queue is being tried.
    """

    def __init__(self, report: Reporter) -> None:
        self.failures, self.rests_until = 0, 0.0
        self.has_accepted = self.is_suspect = False
        self.outage = Outage(report)
        # By key and fingerprint, since a store gives a new version to a message that it puts behind others.
        self._refused: Recent[tuple[str, bytes], bool] = Recent(MAX_REFUSED)

    def note_refused(self, messages: Sequence[Message]) -> None:
        """Note messages that were refused alone while nothing was accepted: it is not known whether they are bad."""
        for message in messages:
            self._refused[message.key, message.fingerprint] = True

    def forget_refused(self) -> None:
        """Forget which messages were refused alone."""
        self._refused = Recent(MAX_REFUSED)

    def bisection(self, batch: Sequence[Message]) -> Bisection:
        """Return the bisection of a batch: what was refused alone comes last, until that is true of all messages."""
        refused = {
            message.version
            for message in (batch if self._refused else ())
            if self._refused.get((message.key, message.fingerprint))
        }
        if len(refused) < len(batch):
            return Bisection(batch, refused)
        self.forget_refused()
        return Bisection(batch)


class Destinations:
    """The health of all destinations of one sender.

    Args:
        service: The name of the service behind them, in messages.
        backoff: How long one is left alone after a failure.
        report: Where each outage is reported once.
    """

    def __init__(self, service: str, backoff: Backoff, report: Reporter) -> None:
        self._service, self._backoff, self._report = service, backoff, report
        self._healths: dict[Destination, Health] = {}
        self._is_closing = False
        self.failure: Answer | None = None  # the last one, until something is accepted

    def health(self, destination: Destination) -> Health:
        """Return the health of a destination."""
        if (health := self._healths.get(destination)) is None:
            health = self._healths[destination] = Health(self._report)
        return health

    def outages(self) -> list[Outage]:
        """Return the outages of all destinations. Takes no lock."""
        return [health.outage for health in [*self._healths.values()]]

    def resting(self) -> dict[Destination, float]:
        """Return the destinations that rest, and until when."""
        now = monotonic()
        return {
            where: health.rests_until for where, health in self._healths.items() if health.rests_until > now
        }

    def close(self) -> None:
        """Let all destinations be tried again at once, and from now on soon after a failure. Idempotent."""
        if not self._is_closing:
            self._is_closing = True
            for health in self._healths.values():
                health.rests_until = 0.0

    def succeed(self, destination: Destination) -> None:
        """Note that a destination has accepted something, or refused no more than single messages."""
        health = self.health(destination)
        health.outage.end(f"{self._service} accepts updates again; failed attempts: {health.failures}")
        health.failures, self.failure = 0, None

    def fail(self, destination: Destination, answer: Answer) -> float:
        """Note a failure of the destination itself; return until when it rests."""
        health = self.health(destination)
        health.failures += 1
        self.failure = answer
        seconds = self._backoff.seconds(answer, health.failures, is_closing=self._is_closing)
        health.rests_until = monotonic() + seconds
        return health.rests_until

    def report_outage(self, destination: Destination, answer: Answer, messages: Sequence[Message]) -> None:
        """Report that messages wait for a destination, once for each kind of failure in a row."""
        error = delivery_error(answer, messages, will_retry=True)
        self.health(destination).outage.begin(error, answer.outcome)


def delivery_error(answer: Answer, messages: Sequence[Message], *, will_retry: bool) -> DeliveryError:
    """Return what ``on_error`` gets about messages that were not accepted."""
    return DeliveryError(
        answer.reason,
        len(messages),
        will_retry=will_retry,
        misconfigured=answer.outcome is Outcome.MISCONFIGURED,
        identifiers=tuple(message.distinct_id for message in messages),
        answer=answer.text,
    )
