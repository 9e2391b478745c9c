"""The thread that delivers: one batch in flight, bisected if it is refused, retried with back-off.

Guarantee: a message leaves the outbox only when it was accepted, or was refused alone; nothing older is sent after
something newer. No I/O happens while a lock is held. Boundary: knows neither flags nor HTTP.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from flagsync._clock import monotonic, time
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.bisection import Bisection
from flagsync._delivery.destinations import Backoff, Destinations, Health, delivery_error
from flagsync._outbox.contract import Claim, Delivery, Mark, Message
from flagsync._report import Outage, Reporter
from flagsync._stats import Ledger
from flagsync._worker import Flush, Flushes, Worker, time_left

TOO_LATE = "The process was suspended, and could not send a batch before its lease ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """How a sender behaves.

    Attributes:
        thread: The name of its thread.
        service: The name of the service that it sends to, in messages.
        request_seconds: How long a request may take. Each failure in a row adds as much again for the next one, up to
            three times this.
        max_requests: The most requests for one batch. If nothing of it is accepted by then, the service may refuse
            everything.
        look_seconds: How often to look for messages that other processes have put into a shared outbox.
        backoff: How long a destination is left alone after a failure.
    """

    thread: str = "flagsync-sender"
    service: str = "Mixpanel"
    request_seconds: float = 10.0
    max_requests: int = 64
    look_seconds: float = 1.0
    backoff: Backoff = field(default_factory=Backoff)


class Transport(Protocol):
    """What carries messages to a service."""

    def post(self, url: str, bodies: Sequence[bytes], seconds: float) -> Answer:
        """Send messages; within about ``seconds``, return what became of them. Raises nothing."""


class Sender:
    """Claims the due messages of an outbox, sends them, and settles the outcome.

    Args:
        outbox: Where the messages wait.
        transport: How they are sent.
        on_end: Called by the thread when it ends.
        ledger: Where requests are counted.
        report: Where outages and rejections are reported.
        sending: How it behaves.
    """

    def __init__(
        self,
        outbox: Delivery,
        transport: Transport,
        *,
        on_end: Callable[[], None],
        ledger: Ledger,
        report: Reporter,
        sending: Sending = Sending(),
    ) -> None:
        self._outbox, self._transport, self._on_end = outbox, transport, on_end
        self._ledger, self._report, self._sending = ledger, report, sending
        self._destinations = Destinations(sending.service, sending.backoff, report)
        self.worker = Worker(sending.thread, self._step, report, self._end)
        self._flushes = Flushes(self.worker)
        self._marks: dict[Flush, Mark] = {}
        self._deadline = inf  # of a client that closes
        self._nothing_more_comes = False

    @property
    def failure(self) -> Answer | None:
        """Why nothing is accepted, if that is so."""
        return self._destinations.failure

    def outages(self) -> list[Outage]:
        """Return the outages of all destinations, over or not. Takes no lock."""
        return self._destinations.outages()

    @property
    def is_misconfigured(self) -> bool:
        """Whether nothing is accepted until a person corrects the configuration."""
        return self.failure is not None and self.failure.outcome is Outcome.MISCONFIGURED

    def flush(self, deadline: float, *, unless_misconfigured: bool = False) -> bool:
        """Wait until what is in the outbox is settled; False at the deadline or, if asked for, if misconfigured."""
        return self._flushes.wait(deadline, lambda: unless_misconfigured and self.is_misconfigured)

    def stop(self, deadline: float) -> None:
        """Send without delay from now on, and give up at the deadline. Takes no lock."""
        self._deadline = min(deadline, self._deadline)
        self.worker.stop()

    def finish(self) -> None:
        """Tell the thread that no more messages will be put: it ends when all are settled."""
        self._nothing_more_comes = True
        self.worker.wake()

    def _step(self) -> float | None:
        """Send one batch; return how long to wait for the next one, or None to end."""
        if monotonic() >= self._deadline:
            return None
        if self._deadline < inf:
            self._destinations.close()
        is_last = self._nothing_more_comes  # read before claiming: what is put meanwhile needs one more step
        urgent = self._flushes.are_waiting or is_last
        claim = self._outbox.claim(self._destinations.resting(), urgent=urgent)
        if claim.messages:
            self._deliver(claim)
        self._report.report_deferred()
        self._look_at_flushes()
        if claim.messages:
            return 0.0
        if is_last and (claim.next_at == inf or claim.next_at >= self._deadline):
            return None
        return max(0.0, min(claim.next_at - monotonic(), time_left(self._deadline), self._look_seconds()))

    def _end(self) -> None:
        self._report.report_deferred(now=True)
        self._on_end()

    def _look_seconds(self) -> float:
        if not self._outbox.is_shared:
            return inf
        return self._sending.look_seconds / 10 if self._flushes.are_waiting else self._sending.look_seconds

    def _look_at_flushes(self) -> None:
        """Release the callers whose messages are settled now."""
        waiting = self._flushes.waiting()
        self._marks = {flush: self._marks.get(flush) or self._outbox.mark() for flush in waiting}
        done = [flush for flush, mark in self._marks.items() if self._outbox.is_settled(mark)]
        if done:
            self._flushes.finish(done)

    def _deliver(self, claim: Claim) -> None:
        """Send a batch, bisected as often as necessary."""
        batch = claim.messages
        bisection = self._destinations.health(batch[0].destination).bisection(batch)
        failure, refusal = None, Answer(Outcome.REFUSED)
        for _ in range(self._sending.max_requests):
            if bisection.is_decided:
                break
            until = min(claim.until, self._deadline)  # the client may be closed meanwhile
            if monotonic() >= until:
                failure = Answer(Outcome.UNAVAILABLE, refusal.reason or TOO_LATE, text=refusal.text)
                break
            part = bisection.next_part()
            answer = self._request(part, until)
            if answer.outcome is Outcome.ACCEPTED:
                bisection.accept(part)
            elif answer.outcome is Outcome.REFUSED:
                refusal = answer
                bisection.refuse(part, answer.refused)
            else:
                failure = answer
                break
        self._settle(batch, bisection, failure, refusal, has_more=claim.has_more)

    def _settle(
        self,
        batch: Sequence[Message],
        bisection: Bisection,
        failure: Answer | None,
        refusal: Answer,
        *,
        has_more: bool,
    ) -> None:
        destination = batch[0].destination
        health = self._destinations.health(destination)
        all_refused = not (failure or bisection.accepted or bisection.is_decided)
        if all_refused and not health.has_accepted:
            failure = self._suspect(health, refusal, has_more=has_more)
        # A message that is refused alone is bad if others are accepted, or if nothing is left of the batch.
        is_proof = bisection.accepted or health.has_accepted or (bisection.is_decided and not failure)
        rejected = bisection.rejected if is_proof else []
        if bisection.accepted:
            health.forget_refused()
        elif not rejected:
            health.note_refused(bisection.rejected)
        health.has_accepted = bool(bisection.accepted) or (health.has_accepted and not all_refused)
        self._outbox.settle(bisection.accepted, rejected, last=all_refused)
        is_complete = len(bisection.accepted) == len(batch)
        self._ledger.last_error = None if is_complete else (failure or refusal).reason
        for message in rejected:
            if message.replaces:
                self._report.tell(message.distinct_id, refusal.reason)
        if rejected:
            self._report.report(delivery_error(refusal, rejected, will_retry=False))
        health.is_suspect = health.is_suspect and not bisection.accepted
        if failure:
            if bisection.accepted:
                health.failures = 0  # this failure is not one in a row
            settled = {message.version for message in (*bisection.accepted, *rejected)}
            self._fail(failure, [message for message in batch if message.version not in settled])
        elif not all_refused:
            self._destinations.succeed(destination)

    def _suspect(self, health: Health, refusal: Answer, *, has_more: bool) -> Answer | None:
        """Return the failure of a destination that refuses a whole batch; None to try another batch first."""
        if has_more and not health.is_suspect:
            health.is_suspect = True
            return None
        health.is_suspect = False
        reason = f"{refusal.reason}, whatever is sent"
        return refusal._replace(outcome=Outcome.MISCONFIGURED, reason=reason)

    def _request(self, part: Sequence[Message], until: float) -> Answer:
        destination = part[0].destination
        failures = self._destinations.health(destination).failures
        self._ledger.count("requests")
        if failures:
            self._ledger.count("retries")
        seconds = self._sending.request_seconds * min(1 + failures, 3)
        seconds = max(0.1, min(seconds, until - monotonic()))
        answer = self._transport.post(destination.url, [message.record for message in part], seconds)
        if answer.outcome is Outcome.ACCEPTED:
            self._ledger.last_success_at = time()
        else:
            self._ledger.failures.count(answer.error_type)
        return answer

    def _fail(self, answer: Answer, kept: Sequence[Message]) -> None:
        until = self._destinations.fail(kept[0].destination, answer)
        self.worker.announce()
        # A closing client without a shared outbox gives these up for good, and reports that when it ends.
        if until < self._deadline or self._outbox.is_shared:
            self._destinations.report_outage(kept[0].destination, answer, kept)
