"""The thread that turns evaluations into messages.

Guarantee: ``submit`` appends to a queue, whatever the number of flags; it waits for nothing and never raises. Of each
identity the latest call counts. Boundary: knows nothing of sending.
"""

from collections.abc import Callable
from math import inf
from time import monotonic

from flagsmith.models import Flags

from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.evaluation import Evaluation, evaluation_of
from flagsync._encoding.inbox import NOT_MIRRORED, Inbox
from flagsync._encoding.pacer import AS_A_RULE, WHILE_SOMEBODY_WAITS, Pacer
from flagsync._encoding.profile import ProfileEncoder
from flagsync._outbox.contract import Intake
from flagsync._report import Reporter, is_interrupt_of_application
from flagsync._stats import Ledger
from flagsync._worker import Flushes, Worker

GATHER_SECONDS = 0.05
# A full batch is announced after so many calls: while Mixpanel is down there always is one, and to wake the sender for
# each call would cost more than encoding it.
ANNOUNCE_EVERY = 64


class Encoder:
    """Takes what was evaluated, and puts what has changed into the outbox.

    Args:
        inbox: Where calls wait.
        profile: Turns a call into a message.
        outbox: Where messages are put.
        pacer: Lets the thread rest.
        start: Starts the threads; False if Python starts none any more.
        on_put: Called when messages were put, so that they are sent.
        on_end: Called by the thread when it ends.
        ledger: Where outcomes are counted.
        report: Told of losses, and once of each reason why an identity is not mirrored.
        gather_seconds: How long calls gather, so that the thread does not wake up for each.
    """

    def __init__(
        self,
        inbox: Inbox,
        profile: ProfileEncoder,
        outbox: Intake,
        pacer: Pacer,
        *,
        start: Callable[[], bool],
        on_put: Callable[[], None],
        on_end: Callable[[], None],
        ledger: Ledger,
        report: Reporter,
        gather_seconds: float = GATHER_SECONDS,
    ) -> None:
        self._inbox, self._profile, self._outbox, self._pacer = inbox, profile, outbox, pacer
        self._start, self._on_put, self._on_end = start, on_put, on_end
        self._ledger, self._report, self._gather_seconds = ledger, report, gather_seconds
        self.worker = Worker("flagsync-encoder", self._step, report, self._end)
        self._flushes = Flushes(self.worker)

    def submit(self, identifier: object, flags: Flags) -> None:
        """Let the flags of an identity be mirrored."""
        # Written out here, since each call of a function would be a tenth of what the caller pays.
        calls = self._inbox.calls
        calls.append((identifier, evaluation_of(flags), monotonic()))
        if len(calls) >= self._inbox.attend_at:
            self._attend()

    def skip(self) -> None:
        """Count a call that is not to be mirrored."""
        self._inbox.count_removed()
        self._ledger.count("skipped")

    def stop(self) -> None:
        """Refuse calls from now on, encode those that wait, and end. Takes no lock."""
        self._inbox.close()
        self._pacer.rhythm = WHILE_SOMEBODY_WAITS
        self.worker.stop()

    def flush(self, deadline: float) -> bool:
        """Wait until what was submitted before the call is in the outbox; False at the deadline."""
        if self._inbox.is_idle and not self._inbox.has_calls():
            return True
        self._pacer.rhythm = WHILE_SOMEBODY_WAITS
        return self._flushes.wait(deadline) or self.worker.is_ended

    def _attend(self) -> None:
        """Wake the thread and keep the queue within its bound, or refuse the call."""
        if self._inbox.is_closed or self.worker.is_ended:
            if self._inbox.remove_newest():  # else the thread has collected it
                self._ledger.count(self._not_mirrored(NotMirrored("the client is closed")))
            return
        if self._start():
            self._inbox.wait_for_next_state()
            self.worker.wake()
        self._inbox.keep_bound()

    def _step(self) -> float | None:
        """Wait for calls, let them gather, and encode them."""
        inbox = self._inbox
        if not (inbox.has_calls() or self._is_hurried()):
            inbox.wait_for_first()
            if not inbox.has_calls():  # a call that came a moment before has not woken the thread
                return inf
        if inbox.is_idle and not (self._is_hurried() or inbox.has_enough()):
            inbox.wait_for_enough()
            return self._gather_seconds
        inbox.wait_for_none()
        self._encode_all()
        if self.worker.is_stopping and not inbox.has_calls():
            inbox.wait_for_first()
            return 0.0 if inbox.has_calls() else None  # one more may have come, and did not attend
        inbox.wait_for_enough()
        return self._gather_seconds if inbox.has_calls() and not inbox.has_enough() else 0.0

    def _end(self) -> None:
        self._report.report_deferred(now=True)
        self._on_end()

    def _is_hurried(self) -> bool:
        """Whether somebody waits for the thread."""
        return self._flushes.are_waiting or self.worker.is_stopping

    def _encode_all(self) -> None:
        """Encode what waits now, each identity once."""
        inbox, pacer, flushes = self._inbox, self._pacer, self._flushes.waiting()
        pacer.rhythm = WHILE_SOMEBODY_WAITS if self._is_hurried() else AS_A_RULE
        inbox.collect()
        for number in range(len(inbox)):
            if outcome := self._encode(*inbox.pop()):
                self._ledger.count(outcome)
            if number % ANNOUNCE_EVERY == 0 and self._outbox.has_full_batch():
                self._on_put()
            pacer.pause()
            if inbox.calls:
                inbox.collect()
        self._outbox.save()
        self._report.report_deferred()
        self._flushes.finish(flushes)
        self._on_put()

    def _encode(self, identifier: object, evaluation: Evaluation, evaluated_at: float) -> str | None:
        """Put the message of a call into the outbox; return what became of the call if it waits no more."""
        profile = self._profile
        try:
            distinct_id = profile.distinct_id(identifier)
            if isinstance(distinct_id, NotMirrored):
                return self._not_mirrored(distinct_id)
            key = profile.evaluation_key(evaluation)
            if key is not None and self._outbox.unchanged(profile.destination, distinct_id, key):
                return "unchanged"
            message = profile.encode(distinct_id, evaluation, key, evaluated_at)
            if isinstance(message, NotMirrored):
                return self._not_mirrored(message)
            if not self._outbox.put(message):
                return "unchanged"
        except BaseException as error:  # one identity's failure must not cost another's update
            if is_interrupt_of_application(error):
                raise
            self._report.count_loss(f"Flags cannot be mirrored ({type(error).__name__})")
            return "rejected"
        return None

    def _not_mirrored(self, reason: NotMirrored) -> str:
        self._report.warn_once(NOT_MIRRORED.format(reason.reason))
        return "skipped"
