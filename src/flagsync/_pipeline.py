"""Wires encoder, outbox and sender of one client in one process: how they start and how they end.

Guarantee: the threads start with the first call and end with the client. ``flush`` and ``close`` return at their
deadline, whatever a store or a callback does. When Python exits, what is pending is delivered within
``EXIT_SECONDS`` of ``_process``. Boundary: counts nothing.
"""

import os
from dataclasses import replace
from math import inf
from types import ModuleType

from flagsync._clock import monotonic
from flagsync._delivery.answers import Answer, Outcome
from flagsync._delivery.mixpanel import MixpanelApi
from flagsync._delivery.sender import Sender
from flagsync._encoding.calls import Calls
from flagsync._encoding.encoder import Encoder
from flagsync._encoding.exposure import ExposureEncoder
from flagsync._encoding.inbox import Inbox
from flagsync._encoding.pacer import Pacer
from flagsync._encoding.profile import ProfileEncoder
from flagsync._loss import Loss
from flagsync._options import Options
from flagsync._outbox.contract import MAX_BATCH_MESSAGES, Destination, Limits, Outbox
from flagsync._outbox.durable import DurableOutbox
from flagsync._outbox.memory import MemoryOutbox
from flagsync._process import close_before_exit, python_exits, register_in_child, this_process
from flagsync._report import Reporter
from flagsync._stats import OUTCOMES, Ledger, Stats, exposure_stats_of, stats_of
from flagsync.exceptions import DeliveryError

UNUSED_SECONDS = 1.0  # that a client without calls of its own goes on sending for others while it closes


class Pipeline:
    """What mirrors the calls of one client in one process.

    Args:
        options: Of the client.
        token: Of the Mixpanel project.

    Attributes:
        process: The one that it belongs to.
        encoder: Where calls are submitted.
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
            self._outbox,
            self._api,
            on_end=self._end,
            ledger=self._ledger,
            report=self.report,
            sending=sending,
        )
        enough = min(MAX_BATCH_MESSAGES, max(1, options.max_pending // 2))
        self._inbox = Inbox(options.bound, enough, self._ledger, self.report)
        calls, pacer = Calls(), Pacer()
        self.encoder = Encoder(
            self._inbox,
            ProfileEncoder(
                token,
                calls,
                options.names,
                options.destination(token),
                resend_after_seconds=options.resend_after_seconds,
                pacer=pacer,
                report=self.report,
            ),
            ExposureEncoder(
                token, calls, options.exposure_names, options.destination(token, "track"), self.report
            ),
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
        """Begin to send what waits in a shared store, since other processes may have ended."""
        if self._outbox.has_pending():
            self._start()

    def wait_for_room(self) -> None:
        """After each ``max_pending`` calls, wait until Mixpanel has accepted them."""
        submitted = self._inbox.submitted
        if submitted < self._wait_at or self._is_own_thread():
            return
        if not self.flush(monotonic() + self._exit_seconds if python_exits() else inf):
            self.stop(monotonic() + self._exit_seconds)  # Mixpanel hangs while Python exits: wait once only
        self._wait_at = self._inbox.submitted + self._wait_every

    def flush(self, deadline: float) -> bool:
        """Wait until what was submitted, or waits in a shared store, is settled; False at the deadline."""
        if self._is_own_thread():
            return False  # a callback would wait for its own thread
        if not self._sender.worker.is_started:
            self.resume()
        if self._inbox.has_calls() and not self._start() and python_exits():
            return self.close(deadline)  # no thread starts any more: nobody else would do the work
        if not self._sender.worker.is_started or self._sender.worker.is_ended:
            stats = self.stats()
            return stats.pending + stats.exposures.pending == 0 and not self._loss.is_certain
        return self.encoder.flush(deadline) and self._sender.flush(deadline)

    def stop(self, deadline: float) -> None:
        """Accept no more calls, deliver until the deadline, end the threads. Takes no lock."""
        if self.process == this_process():
            self._outbox.set_deadline(deadline)
            self._sender.stop(deadline)
            self.encoder.stop()

    def close(self, deadline: float) -> bool:
        """Stop and wait for the threads; False if Mixpanel has not accepted everything by the deadline."""
        if not self._inbox.submitted:  # what others have put waits in their store
            deadline = min(deadline, monotonic() + UNUSED_SECONDS)
        self.stop(deadline)
        if self._is_own_thread():
            return False
        if not (self._inbox.submitted or self._sender.worker.is_started):
            return True
        self.encoder.worker.run()  # by hand, if no thread was needed, or none starts because Python exits
        self._sender.worker.run()
        if not (self.encoder.worker.join(deadline) and self._sender.worker.join(deadline)):
            self._give_up()
        return not self._loss.wait()

    def stats(self) -> Stats:
        """Return counts that add up: the calls are read last, so that all that was counted is among them."""
        counts, events = self._ledger.counts(), self._ledger.events()
        calls, exposures = self._inbox.submitted_apart()
        kept, kept_events = self._outbox.kept() if self._loss.is_certain else (None, None)
        return stats_of(counts, calls, kept, exposure_stats_of(events, exposures, kept_events))

    def _start(self) -> bool:
        """Start the threads; False if Python starts none any more."""
        if self._sender.worker.is_started:
            return True
        if self.encoder.worker.start() and self._sender.worker.start():
            register_in_child()
            return True
        return False

    def _is_own_thread(self) -> bool:
        return self.encoder.worker.is_current() or self._sender.worker.is_current()

    def _end(self) -> None:
        """Leave nothing behind. The sender's thread calls it when it ends."""
        self._give_up(in_thread=False)
        self._api.close()
        self._outbox.close()

    def _give_up(self, *, in_thread: bool = True) -> None:
        """Drop and report what Mixpanel has not accepted; what a store keeps is not lost."""
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


def _outbox(options: Options, destinations: list[Destination], ledger: Ledger, report: Reporter) -> Outbox:
    limits = Limits(max_pending=options.bound, flush_interval_seconds=options.flush_interval_seconds)
    memory = MemoryOutbox(limits, ledger, report)
    if options.outbox is None:
        return memory
    backend = file_outboxes().open_backend(str(options.outbox), options.tuning.file)
    return DurableOutbox(
        memory,
        backend,
        limits=limits,
        staging=options.tuning.staging,
        ledger=ledger,
        report=report,
        destinations=destinations,
    )


def file_outboxes() -> ModuleType:
    """Return the module of outboxes in files. It needs sqlite3, which is imported where a file is used."""
    from flagsync._outbox import file  # noqa: PLC0415

    return file


def outbox_stats(path: str | os.PathLike[str]) -> Stats:
    """Return what became of all updates that the file of an ``outbox`` has had, whoever put and sent them.

    ``requests``, ``retries`` and ``skipped`` are of a process, and not in the file.

    Raises:
        FileNotFoundError: There is no file.
        ValueError: It is something else.
    """
    totals, events = file_outboxes().totals(path)
    counts = {name: getattr(totals, name) - getattr(events, name) for name in OUTCOMES}
    exposures = exposure_stats_of({**events._asdict(), "skipped": 0}, events.accepted)
    return stats_of({**counts, "skipped": 0}, totals.accepted - events.accepted, exposures=exposures)
