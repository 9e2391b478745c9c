"""Wires the encoder, outbox and sender of one client in one process; starts and ends them.

Guarantee: the threads start with the first call and end with the client. ``flush`` and ``close`` return at their
deadline, whatever a store or a callback does. When Python exits, the client delivers pending updates for up to
``_process.EXIT_SECONDS``. Boundary: ``_stats`` counts outcomes.
"""

from dataclasses import replace
from math import inf

from flagsync._clock import monotonic
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.mixpanel import MixpanelApi
from flagsync._delivery.sender import Sender
from flagsync._encoding.calls import Calls
from flagsync._encoding.deletions import Deletions
from flagsync._encoding.encoder import Encoder
from flagsync._encoding.exposure import ExposureEncoder
from flagsync._encoding.inbox import Inbox
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.profile import ProfileEncoder
from flagsync._loss import Loss
from flagsync._options import Options
from flagsync._outbox.contract import MAX_BATCH_MESSAGES, Destination, Outbox
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._outbox.place import open_backend
from flagsync._process import close_before_child_exit, close_before_exit, python_exits, this_process
from flagsync._report import Outage, Reporter
from flagsync._signals import sigterm_advice
from flagsync._stats import Ledger, Stats, age, exposure_stats_of, stats_of
from flagsync.exceptions import DeliveryError

# How long a closing client without calls of its own keeps sending the messages of other processes.
UNUSED_SECONDS = 1.0
WAITS_NO_LONGER = (
    "when_full='wait' does not wait while a configuration error keeps Mixpanel from accepting updates: beyond "
    "max_pending the oldest are dropped"
)


class Pipeline:
    """Mirrors the calls of one client in one process.

    Args:
        options: The client's options.
        token: The Mixpanel project token.

    Attributes:
        process: The process that it belongs to.
        encoder: Takes the calls.
        report: Where problems are reported.
    """

    def __init__(self, options: Options, token: str) -> None:
        self.process = this_process()
        self.report, self._ledger = Reporter(options.on_error), Ledger()
        destinations = [options.destination(token), options.destination(token, "track")]
        self._outbox = _outbox(options, destinations, self._ledger, self.report)
        self._api = MixpanelApi()
        tuning, interval = options.tuning, options.flush_interval_seconds
        sending = replace(tuning.sending, look_seconds=min(interval, tuning.sending.look_seconds))
        self._sender = Sender(
            self._outbox, self._api, on_end=self._end, ledger=self._ledger, report=self.report, sending=sending
        )
        enough = min(MAX_BATCH_MESSAGES, max(1, options.max_pending // 2))
        self._inbox = Inbox(options.bound, enough, self._ledger, self.report)
        pacer = Pacer()
        deletions = Deletions(self._outbox, destinations[0]) if options.unset_deleted else None
        profile = profile_encoder(options, token, pacer, self.report, deletions)
        self.encoder = Encoder(
            self._inbox,
            profile,
            ExposureEncoder(token, profile.calls, options.exposure_names, destinations[1], self.report),
            self._outbox,
            pacer,
            start=self._start,
            on_put=self._sender.worker.wake,
            on_end=self._sender.finish,
            ledger=self._ledger,
            report=self.report,
            gather_seconds=min(tuning.gather_seconds, interval / 2),
        )
        self._wait_every = self._wait_at = options.max_pending  # calls
        self._exit_seconds = tuning.exit_seconds
        self._loss = Loss()
        close_before_exit(self)

    @property
    def is_closed(self) -> bool:
        """Whether it accepts no more calls."""
        return self._inbox.is_closed

    def resume(self) -> None:
        """Start sending if messages wait in a shared store: the processes that put them may have ended."""
        if self._outbox.has_pending():
            self._start()

    def wait_for_room(self) -> None:
        """After each ``max_pending`` calls, wait until Mixpanel has accepted them, unless it accepts nothing at all."""
        if self._inbox.submitted < self._wait_at or self._is_own_thread():
            return
        is_ending = python_exits()
        deadline = monotonic() + self._exit_seconds if is_ending else inf
        if not self.flush(deadline, unless_misconfigured=True) and is_ending:
            self.stop(monotonic() + self._exit_seconds)  # Mixpanel hangs: wait only once
        if self._sender.is_misconfigured:
            self.report.warn_once(WAITS_NO_LONGER)
        self._wait_at = self._inbox.submitted + self._wait_every

    def flush(self, deadline: float, *, unless_misconfigured: bool = False) -> bool:
        """Wait until submitted calls and the messages in a shared store are settled; False at the deadline.

        If asked for, do not wait while Mixpanel accepts nothing until a person corrects the configuration.
        """
        if self._is_own_thread():
            return False  # a callback would wait for the thread that runs it
        if self._inbox.has_calls():
            if not self._start() and python_exits():
                return self.close(deadline)  # no thread can start any more, so deliver in this one
        elif self._outbox.is_remote:
            self._start()  # the sender looks whether messages wait: a server that hangs would hold up this caller
        elif not self._sender.worker.is_started:
            self.resume()
        if not self._sender.worker.is_started or self._sender.worker.is_ended:
            stats = self.stats()
            return stats.pending + stats.exposures.pending == 0 and not self._loss.is_certain
        return self.encoder.flush(deadline) and self._sender.flush(
            deadline, unless_misconfigured=unless_misconfigured
        )

    def stop(self, deadline: float) -> None:
        """Accept no more calls, deliver until the deadline, end the threads. Takes no lock."""
        if self.process == this_process():
            self._outbox.set_deadline(deadline)
            self._sender.stop(deadline)
            self.encoder.stop()

    def close(self, deadline: float) -> bool:
        """Stop and wait for the threads; False if Mixpanel has not accepted everything by the deadline."""
        if not self._inbox.submitted:  # messages of other processes are safe in the store
            deadline = min(deadline, monotonic() + UNUSED_SECONDS)
        self.stop(deadline)
        if self._is_own_thread():
            return False
        if not (self._inbox.submitted or self._sender.worker.is_started):
            self._outbox.close()  # which was asked whether anything waits
            return True
        self.encoder.worker.start_or_run()  # nobody has started them yet, or none can start while Python >= 3.12 exits
        self._sender.worker.start_or_run()
        if not (self.encoder.worker.join(deadline) and self._sender.worker.join(deadline)):
            self._give_up()
        return not self._loss.wait(deadline)

    def stats(self) -> Stats:
        """Return counts that add up. The calls are read last, so that they include every counted one."""
        counts, events = self._ledger.counts(), self._ledger.events()
        calls, exposures = self._inbox.submitted_apart()
        is_lost, waits_since = self._loss.is_certain, self._outbox.waits_since()
        kept, kept_events = self._outbox.kept() if is_lost else (None, None)
        return stats_of(
            counts,
            calls,
            kept,
            exposure_stats_of(events, exposures, kept_events),
            oldest_seconds=age(waits_since if is_lost else min(waits_since, self._inbox.waits_since())),
            last_success_at=self._ledger.last_success_at,
            last_error=self._ledger.last_error,
        )

    def failures(self) -> dict[str, int]:
        """Return how many requests were not accepted, by the kind of failure."""
        return self._ledger.failures.counts()

    def outages(self) -> list[Outage]:
        """Return what may have failed: Mixpanel and a shared store. Takes no lock."""
        return [*self._sender.outages(), *self._outbox.outages()]

    def obstacle(self) -> DeliveryError:
        """Return why what is pending is not delivered: the configuration is wrong, or the client is closed."""
        why = self._sender.failure or Answer(Outcome.UNAVAILABLE, "The client is closed")
        is_wrong = why.outcome is Outcome.MISCONFIGURED
        return DeliveryError(why.reason, self.stats().pending, misconfigured=is_wrong, answer=why.text)

    def _start(self) -> bool:
        """Start the threads; False if Python is exiting and cannot start any."""
        if self._sender.worker.is_started:
            return True
        if self.encoder.worker.start() and self._sender.worker.start():
            close_before_child_exit(self)
            if advice := sigterm_advice():
                self.report.warn_once(advice)
            return True
        return False

    def _is_own_thread(self) -> bool:
        return self.encoder.worker.is_current() or self._sender.worker.is_current()

    def _end(self) -> None:
        """Release everything. The sender's thread calls this when it ends."""
        self._api.close()
        self._outbox.close()  # it may still store what waits in memory
        self._give_up(in_thread=False)

    def _give_up(self, *, in_thread: bool = True) -> None:
        """Drop and report what Mixpanel has not accepted, except for what a store keeps."""
        stats = self.stats()
        self._outbox.abandon()
        lost = stats.pending + stats.exposures.pending - sum(self._outbox.kept())
        if lost > 0:
            self._loss.report(self.report, self._loss_error(lost), in_thread=in_thread)

    def _loss_error(self, lost: int) -> DeliveryError:
        why = self._sender.failure or Answer(Outcome.UNAVAILABLE)
        reason = "; ".join(filter(None, ("The client was closed before Mixpanel accepted them", why.reason)))
        misconfigured = why.outcome is Outcome.MISCONFIGURED
        return DeliveryError(reason, lost, misconfigured=misconfigured, answer=why.text)


def profile_encoder(
    options: Options, token: str, pacer: Pacer, report: Reporter, deletions: Deletions | None = None
) -> ProfileEncoder:
    """Return what turns the calls of a client into messages."""
    return ProfileEncoder(
        token,
        Calls(),
        options.names,
        options.destination(token),
        resend_after_seconds=options.resend_after_seconds,
        pacer=pacer,
        report=report,
        deletions=deletions,
    )


def _outbox(options: Options, destinations: list[Destination], ledger: Ledger, report: Reporter) -> Outbox:
    memory = MemoryOutbox(options.limits, ledger, report)
    if options.outbox is None:
        return memory
    return DurableOutbox(
        memory,
        open_backend(options.outbox, options.tuning.store),
        limits=options.limits,
        staging=options.tuning.staging,
        ledger=ledger,
        report=report,
        destinations=destinations,
    )
