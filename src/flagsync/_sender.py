"""The thread that delivers: one batch in flight, halving, backing off, giving up at a deadline.

Guarantee: an update leaves the outbox only when Mixpanel accepts it, or refuses it alone; nothing older is
sent after something newer. Boundary: knows neither flags nor HTTP.
"""

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from os import getpid
from time import monotonic

from flagsync._http import Answer, Outcome
from flagsync._outbox import Destination, Outbox, Update
from flagsync._report import Reporter
from flagsync.exceptions import DeliveryError

REQUEST_SECONDS = 10.0  # who does not answer in time gets more, up to three times as much
MAX_REQUESTS = 64  # for one batch; one bad update among 2000 is alone after 23
# https://developer.mixpanel.com/reference/import-events
BACKOFF_SECONDS = 2.0  # at first


def seconds_to_wait(answer: Answer, failures: int, *, closing: bool = False) -> float:
    """How long to leave Mixpanel alone after so many failures in a row.

    2 seconds, doubled up to a minute, and 1 to 5 more. A client that closes has no such time, and a hiccup must
    not cost what is pending: an eighth.
    """
    first, longest = BACKOFF_SECONDS / (8 if closing else 1), 30 * BACKOFF_SECONDS
    doubled = min(first * 2 ** min(failures - 1, 10), longest)
    wait = longest if answer.outcome is Outcome.MISCONFIGURED else doubled
    return (answer.retry_after_seconds or wait) + first * random.uniform(0.5, 2.5)  # noqa: S311 - no secret


def time_left(deadline: float) -> float:
    """Seconds until the deadline, as ``Condition.wait`` takes them."""
    return max(0.0, min(deadline - monotonic(), threading.TIMEOUT_MAX))


class Sender:
    """Takes from the outbox what is due and settles what became of it."""

    def __init__(
        self,
        outbox: Outbox,
        post: Callable[[str, Sequence[bytes], float], Answer],
        end: Callable[[], None],
        report: Reporter,
        flush_interval_seconds: float,
        *,
        service: str = "Mixpanel",
        request_seconds: float | None = None,
    ) -> None:
        self._service, self._request_seconds = service, request_seconds or REQUEST_SECONDS
        self._outbox, self._post, self._end, self._report = outbox, post, end, report
        self._flush_interval_seconds = min(flush_interval_seconds, threading.TIMEOUT_MAX)
        # Seconds after which to look what other processes have done.
        self._look_seconds = self._flush_interval_seconds if outbox.shared else threading.TIMEOUT_MAX
        self._changed = threading.Condition(threading.RLock())
        self._once = threading.Lock()
        self._pid = getpid()
        self._idle = True
        self._urgent_up_to = 0.0  # the last evaluation that a flush waits for
        self._deadline: float | None = None  # set when the client is closed
        self._finishing = self._done = False
        # By destination: none suffers for another.
        self._resting: dict[Destination, float] = {}  # until when
        self._incidents: dict[Destination, Outcome] = {}
        self._failures = Counter[Destination]()  # in a row
        self.failure: Answer | None = None  # the last, until something gets through
        self.counts = Counter(requests=0, retries=0)

    def wake(self) -> None:
        """Say that something waits; costs next to nothing while a batch is on its way."""
        if self._idle:
            with self._changed:
                self._changed.notify_all()

    def flush(self, deadline: float) -> bool:
        """Wait until what is in the outbox is settled; False at the deadline."""
        newest = self._urgent_up_to = self._outbox.newest
        return self._wait(lambda: self._settled(newest), deadline)

    def stop(self, deadline: float) -> None:
        """Send without delay from now on, and give up at the deadline. Never blocks."""
        with self._changed:
            if self._deadline is None:
                self._resting.clear()
            self._deadline = min(deadline, self._deadline or deadline)
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that nothing more will be put: ``run`` returns when all is settled."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def join(self, deadline: float) -> bool:
        """Wait until ``run`` has returned; False at the deadline."""
        return self._wait(lambda: self._done, deadline)

    def run(self) -> None:
        """Deliver batch by batch until stopped: the body of the thread, which does nothing a second time."""
        if not self._once.acquire(blocking=False):
            return
        while self._await_batch():
            self._resting = {where: until for where, until in self._resting.items() if until > monotonic()}
            batch = self._outbox.take(self._resting)
            if batch:
                self._deliver(batch)
            self._report.losses()
            with self._changed:
                self._changed.notify_all()
                if not batch:
                    self._rest()
        if self._pid == getpid():
            self._end()
        with self._changed:
            self._done = True
            self._changed.notify_all()

    def _wait(self, holds: Callable[[], bool], deadline: float) -> bool:
        with self._changed:
            self._changed.notify_all()
            while not self._changed.wait_for(holds, min(left := time_left(deadline), self._look_seconds / 10)):
                if not left:
                    return False
            return True

    def _settled(self, newest: float) -> bool:
        oldest = self._outbox.oldest()
        return oldest is None or oldest > newest

    def _await_batch(self) -> bool:
        """Wait until a batch is full or due, or for others' updates to look for; False to end."""
        with self._changed:
            self._idle = True
            self._changed.wait_for(lambda: self._deadline or self._outbox.waiting(), self._look_seconds)
            self._changed.wait_for(
                lambda: self._deadline or self._outbox.full() or not self._settled(self._urgent_up_to),
                self._flush_interval_seconds,
            )
            if self._deadline is not None:  # the encoder may still have something
                self._wait(lambda: self._finishing or self._outbox.full(), self._deadline)
            self._idle = False
            # Greenlets survive a fork: what they have is their parent's to send.
            if self._too_late(monotonic()) or self._pid != getpid():
                return False
            return self._deadline is None or (self._outbox.oldest() is not None and self._outbox.waiting())

    def _rest(self) -> None:
        """Wait for those that rest. When the client is closed: give up if their time comes too late."""
        until = min(self._resting.values(), default=monotonic())
        if self._too_late(until):
            self._deadline = monotonic()
        else:
            self._changed.wait_for(lambda: not self._resting, min(time_left(until), self._look_seconds))

    def _deliver(self, batch: list[Update]) -> None:
        """Send a batch, halved as often as it takes."""
        parts, accepted, refused = [batch], list[Update](), list[Update]()
        failure, refusal = None, Answer(Outcome.REFUSED)
        for _ in range(MAX_REQUESTS):
            if not parts or failure:
                break
            answer = self._request(part := parts.pop())
            if answer.outcome is Outcome.ACCEPTED:
                accepted += part
            elif answer.outcome is not Outcome.REFUSED:
                failure = answer
            elif middle := len(part) // 2:
                refusal = answer
                parts += [part[middle:], part[:middle]]
            else:
                refusal = answer
                refused += part
        if parts and not accepted and not failure:
            # Who refuses everything is not asking for other data.
            failure = refusal._replace(
                outcome=Outcome.MISCONFIGURED, reason=f"{refusal.reason}, whatever is sent"
            )
        rejected = refused if accepted or not failure else []
        self._outbox.settle(accepted, rejected)
        if rejected:
            self._tell(refusal, rejected, will_retry=False)
        if failure:
            if accepted:
                self._failures.pop(batch[0].destination, None)  # it is no failure in a row
            self._failed(failure, batch)
        else:
            self._recovered(batch[0].destination)

    def _request(self, part: list[Update]) -> Answer:
        where = part[0].destination
        self.counts.update(requests=1, retries=where in self._failures)
        seconds = self._request_seconds * min(1 + self._failures[where], 3)
        if self._deadline is not None:
            seconds = max(0.1, min(seconds, self._deadline - monotonic()))
        return self._post(where.url, [update.json for update in part], seconds)

    def _failed(self, answer: Answer, batch: list[Update]) -> None:
        where, closing = batch[0].destination, self._deadline is not None
        self._failures[where] += 1
        self._resting[where] = until = monotonic() + seconds_to_wait(
            answer, self._failures[where], closing=closing
        )
        self.failure = answer
        if self._too_late(until) and not self._outbox.shared:
            return  # it is not sent again: the end of the client tells
        if answer.outcome is not self._incidents.get(where):
            self._incidents[where] = answer.outcome
            self._tell(answer, batch, will_retry=True)

    def _too_late(self, moment: float) -> bool:
        return self._deadline is not None and moment >= self._deadline

    def _recovered(self, where: Destination) -> None:
        self.failure, failures = None, self._failures.pop(where, 0)
        if self._incidents.pop(where, None):
            self._report.say(f"{self._service} takes updates again; failed attempts: {failures}")

    def _tell(self, answer: Answer, updates: list[Update], *, will_retry: bool) -> None:
        error = DeliveryError(
            answer.reason,
            len(updates),
            will_retry=will_retry,
            misconfigured=answer.outcome is Outcome.MISCONFIGURED,
            identifiers=tuple(update.distinct_id for update in updates),
            answer=answer.text,
        )
        self._report.error(error)
