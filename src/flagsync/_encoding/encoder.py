"""The thread that turns evaluations into messages.

Guarantee: ``submit`` appends to a queue, whatever the number of flags; it waits for nothing and never raises. Of each
identity the latest call counts; each exposure counts. Boundary: knows nothing of sending.
"""

from collections.abc import Callable, Collection, Iterable
from math import inf
from typing import TypeAlias

from flagsmith.models import Flags

from flagsync._encoding.calls import Call, Exposure
from flagsync._encoding.distinct_id import NotMirrored
from flagsync._encoding.exposure import ExposureEncoder
from flagsync._encoding.inbox import NOT_MIRRORED, NOT_RECORDED, Inbox
from flagsync._encoding.pacer import AS_A_RULE, WHILE_SOMEBODY_WAITS, Pacer
from flagsync._encoding.profile import ProfileEncoder
from flagsync._outbox.contract import Intake, Repeat
from flagsync._report import Reporter, is_interrupt_of_application
from flagsync._stats import Ledger
from flagsync._worker import Flushes, Worker

GATHER_SECONDS = 0.05
# A full batch is announced after so many calls: while Mixpanel is down there always is one, and to wake the sender for
# each call would cost more than encoding it.
ANNOUNCE_EVERY = 64
# Calls of which the outbox is asked together whether they repeat what it has, since a store is asked at a price.
CALLS_AT_ONCE = 512

KeyedCall: TypeAlias = tuple[Call, int | None]
"""A call, and its evaluation key if it has one."""


class Encoder:
    """Takes what was evaluated, and puts what has changed into the outbox.

    Args:
        inbox: Where calls wait.
        profile: Makes calls, and turns a call into a message.
        exposures: Turns an exposure into a message.
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
        exposures: ExposureEncoder,
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
        self._inbox, self._profile, self._exposures = inbox, profile, exposures
        self._outbox, self._pacer = outbox, pacer
        self._start, self._on_put = start, on_put
        self._ledger, self._report, self._gather_seconds = ledger, report, gather_seconds

        def end() -> None:
            report.report_deferred(now=True)
            on_end()

        self.worker = Worker("flagsync-encoder", self._step, report, end)
        self._flushes = Flushes(self.worker)

    def submit(self, identifier: object, flags: Flags) -> None:
        """Let the flags of an identity be mirrored."""
        # Written out here, since each call of a function would be a tenth of what the caller pays.
        calls = self._inbox.calls
        calls.append(self._profile.calls.make(identifier, flags))
        if len(calls) >= self._inbox.threshold.calls:
            self._attend()

    def expose(self, identifier: object, flag: object) -> None:
        """Let an exposure be recorded."""
        calls = self._inbox.calls
        calls.append(self._profile.calls.expose(identifier, flag))
        if len(calls) >= self._inbox.threshold.calls:
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
        # In this order: calls leave the inbox only while the thread is not idle.
        if not self._inbox.has_calls() and self._inbox.is_idle:
            return True
        self._pacer.rhythm = WHILE_SOMEBODY_WAITS
        return self._flushes.wait(deadline) or self.worker.is_ended

    def _attend(self) -> None:
        """Wake the thread and keep the queue within its bound, or refuse the call."""
        threshold = self._inbox.threshold
        if self._inbox.is_closed or self.worker.is_ended:
            if (call := self._inbox.remove_newest()) is not None:  # else the thread has collected it
                self._skip(NotMirrored("the client is closed"), is_event=isinstance(call, Exposure))
            return
        if self._start():
            self.worker.wake()
            self._inbox.spare_callers(threshold)
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

    def _is_hurried(self) -> bool:
        """Whether somebody waits for the thread."""
        return self._flushes.are_waiting or self.worker.is_stopping

    def _encode_all(self) -> None:
        """Encode what waits now, each identity once."""
        inbox, pacer, flushes = self._inbox, self._pacer, self._flushes.waiting()
        pacer.rhythm = WHILE_SOMEBODY_WAITS if self._is_hurried() else AS_A_RULE
        self._profile.look_for_deletions()
        retired = self._profile.calls.retire()  # before collecting: no call that comes later refers to these
        inbox.collect()
        left = len(inbox)
        while left:
            calls = [inbox.pop() for _ in range(min(left, CALLS_AT_ONCE))]
            left -= len(calls)
            if self._outbox.has_full_batch():
                self._on_put()
            for number, (distinct_id, keyed) in enumerate(self._without_repeats(self._by_profile(calls))):
                self._encode(distinct_id, *keyed)
                if number % ANNOUNCE_EVERY == 0 and self._outbox.has_full_batch():
                    self._on_put()
                pacer.pause()
                if inbox.calls:
                    inbox.collect()
        self._profile.calls.forget(retired)
        self._outbox.save()
        self._report.report_deferred()
        self._flushes.finish(flushes)
        self._on_put()

    def _by_profile(self, calls: Iterable[Call | Exposure]) -> dict[str, KeyedCall]:
        """Put exposures into the outbox; return the latest call of each profile."""
        found = dict[str, KeyedCall]()
        for call in calls:
            distinct_id: str | NotMirrored = ""
            try:
                if isinstance(call, Exposure):
                    self._encode_exposure(call)
                    continue
                distinct_id = self._profile.distinct_id(call[0])
                if isinstance(distinct_id, NotMirrored):
                    self._skip(distinct_id)
                else:
                    key = self._profile.evaluation_key(call)
                    if found.pop(distinct_id, None):  # another identifier has the same profile
                        self._ledger.count("superseded")
                    found[distinct_id] = call, key
            except BaseException as error:  # noqa: BLE001 - one identity's failure must not cost another's update
                self._reject(error, f"{distinct_id}", is_event=isinstance(call, Exposure))
            finally:
                self._pacer.pause()
        return found

    def _without_repeats(self, calls: dict[str, KeyedCall]) -> Collection[tuple[str, KeyedCall]]:
        """Return the calls that must be evaluated."""
        where = self._profile.destination
        repeats = [Repeat(where, name, key, call[-1]) for name, (call, key) in calls.items() if key is not None]
        if repeats:
            new = {repeat.key for repeat in self._outbox.confirm(repeats)}
            for repeat in repeats:
                if repeat.key not in new:
                    del calls[repeat.key]
        return calls.items()

    def _encode(self, distinct_id: str, call: Call, key: int | None) -> None:
        """Put the message of a call into the outbox."""
        try:
            message = self._profile.encode(distinct_id, call, key)
            if isinstance(message, NotMirrored):
                self._report.tell(distinct_id, message.reason)
                self._skip(message)
            else:
                self._outbox.put(message)
        except BaseException as error:  # noqa: BLE001 - as above
            self._reject(error, distinct_id)

    def _encode_exposure(self, exposure: Exposure) -> None:
        """Put the message of an exposure into the outbox."""
        identifier, _, flag, _ = exposure
        distinct_id = flag if isinstance(flag, NotMirrored) else self._profile.distinct_id(identifier)
        if isinstance(distinct_id, NotMirrored):
            self._skip(distinct_id, is_event=True)
            return
        message = self._exposures.encode(distinct_id, exposure)
        if isinstance(message, NotMirrored):
            self._skip(message, is_event=True)
        else:
            self._outbox.put(message)

    def _skip(self, reason: NotMirrored, *, is_event: bool = False) -> None:
        self._ledger.count("skipped", is_event=is_event)
        if reason.reason:
            text = NOT_RECORDED if is_event else NOT_MIRRORED
            self._report.warn_once(text.format(reason.detail or reason.reason), f"{text} {reason.reason}")

    def _reject(self, error: BaseException, distinct_id: str, *, is_event: bool = False) -> None:
        if is_interrupt_of_application(error):
            raise error
        self._ledger.count("rejected", is_event=is_event)
        text = "Exposures cannot be recorded ({})" if is_event else "Flags cannot be mirrored ({})"
        reason = text.format(type(error).__name__)
        self._report.count_loss(reason)
        if not is_event:
            self._report.tell(distinct_id, reason)
