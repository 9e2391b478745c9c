"""Encoder, outbox and sender of one client in one process: how they start and how they end.

Guarantee: the threads start with the first call and end with the client; when Python exits, what is pending
is delivered within ``EXIT_SECONDS``. A forked child never touches the pipeline of its parent, whose locks may
be held by threads that do not exist there.
"""

import atexit
import hashlib
import os
import threading
import weakref
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from multiprocessing import parent_process, util
from time import monotonic

from flagsmith.models import Flags

from flagsync._config import Config
from flagsync._database import prepare
from flagsync._encoder import Encoder
from flagsync._http import Answer, Outcome
from flagsync._mixpanel import Engage
from flagsync._outbox import Destination, MemoryOutbox
from flagsync._report import Reporter
from flagsync._schema import OUTBOX, counts
from flagsync._sender import Sender
from flagsync._sqlite import FileOutbox
from flagsync.exceptions import DeliveryError

EXIT_SECONDS, LAST_WORD_SECONDS = 5.0, 1.0


@dataclass(frozen=True, slots=True)
class Stats:
    """What became of the calls of this process, since construction or fork.

    ``accepted`` is ``delivered + unchanged + superseded + dropped + rejected + pending``.

    Attributes:
        accepted: Calls whose flags are mirrored.
        delivered: Mixpanel accepted the update.
        unchanged: Mixpanel has these flags already, or they are on their way.
        superseded: Overtaken by a later call for the same profile.
        dropped: Given up: ``max_pending`` was reached, or the client closed.
        rejected: Refused by Mixpanel, or impossible to send.
        pending: On their way.
        skipped: Calls that are never mirrored, and not in the sum: transient, without a usable identifier,
            without flags, after ``close``.
        requests: HTTP requests to Mixpanel.
        retries: Those of them that came after a failed one.
    """

    accepted: int = 0
    delivered: int = 0
    unchanged: int = 0
    superseded: int = 0
    dropped: int = 0
    rejected: int = 0
    pending: int = 0
    skipped: int = 0
    requests: int = 0
    retries: int = 0


class Pipeline:
    """What mirrors the calls of one client in one process."""

    def __init__(self, config: Config, token: str) -> None:
        self.pid = os.getpid()
        self._report = Reporter(config.on_error)
        destination = Destination(config.url, hashlib.blake2b(token.encode(), digest_size=8).hexdigest())
        memory = (destination, config.bound, config.resend_after_seconds, self._report)
        self._outbox = FileOutbox(str(config.outbox), *memory) if config.outbox else MemoryOutbox(*memory)
        self._engage = Engage()
        self._sender = Sender(
            self._outbox, self._engage.post, self._end, self._report, config.flush_interval_seconds
        )
        self._encoder = Encoder(config, token, self._outbox, self._sender, self._report, start=self._start)
        self._wait_every = self._wait_at = config.max_pending  # calls
        self._gave_up = False
        self._last_word = threading.RLock()  # on_error may close the client
        self._started = self.closed = False
        waits = config.when_full == "wait"
        self.submit: Callable[[object, Flags], None] = self._submit_and_wait if waits else self._encoder.submit
        self.skip = self._encoder.skip
        self.warn = self._report.once
        _pipelines.add(self)
        if _ended:
            self.stop()

    def flush(self, deadline: float) -> bool:
        """Wait until what was submitted before the call is settled; False at the deadline."""
        if not self._started and self._encoder.submitted and python_exits():
            return self.close(deadline)  # no thread starts any more: nobody else would do the work
        return self._encoder.flush(deadline) and self._sender.flush(deadline)

    def _submit_and_wait(self, identifier: object, flags: Flags) -> None:
        """Submit, and after each ``max_pending`` calls wait until Mixpanel has taken them."""
        self._encoder.submit(identifier, flags)
        submitted = self._encoder.submitted
        # A callback of the application, run by a thread of ours, would wait for itself.
        if submitted >= self._wait_at and not threading.current_thread().name.startswith("flagsync-"):
            if not self.flush(monotonic() + EXIT_SECONDS if python_exits() else float("inf")):
                self.stop()  # Mixpanel hangs while Python exits: the next call must not wait as long again
            self._wait_at = submitted + self._wait_every

    def stop(self, deadline: float | None = None) -> None:
        """Take no more, deliver until the deadline, end the threads. Never blocks."""
        if self.pid == os.getpid():
            self.closed, self.submit = True, self._encoder.refuse
            self._encoder.stop()
            self._sender.stop(deadline or monotonic() + EXIT_SECONDS)

    def close(self, deadline: float) -> bool:
        """Stop and wait for it; False if Mixpanel has not taken everything by then."""
        self.stop(deadline)
        self._encoder.run()  # by itself, where no thread was needed or none starts because Python exits
        self._sender.run()
        if self._gave_up or not (self._encoder.join(deadline) and self._sender.join(deadline)):
            self._give_up()
        return not self._gave_up

    def stats(self) -> Stats:
        """Counts that add up: the calls are read last, so that all that was counted before is among them."""
        counts = self._outbox.counts() + self._encoder.counts()
        skipped, _ = counts.pop("skipped", 0), counts.pop("put", 0)
        accepted = self._encoder.submitted - skipped
        unsettled = accepted - counts.total()
        counts["pending"] = min(unsettled, self._outbox.kept()) if self._gave_up else unsettled
        counts["dropped"] += unsettled - counts["pending"]
        return Stats(accepted=accepted, skipped=skipped, **counts, **self._sender.counts)

    def _start(self) -> bool:
        """Start the threads; called under the encoder's lock. False if none can start any more."""
        if self._started:
            return True
        try:
            for name, run in (("flagsync-encoder", self._encoder.run), ("flagsync-sender", self._sender.run)):
                threading.Thread(target=run, name=name, daemon=True).start()
        except RuntimeError:  # Python >= 3.12 starts none while it exits: close() does the work
            return False
        self._started = True
        if parent_process() is not None:
            # multiprocessing's children end without atexit (before Python 3.13), and begin without what
            # their parent registered.
            util.Finalize(None, close_all, exitpriority=0)
        return True

    def _end(self) -> None:
        self._give_up()
        self._engage.close()

    def _give_up(self) -> None:
        """Drop and report what Mixpanel has not taken; what the outbox keeps is not lost."""
        pending = self.stats().pending
        self._outbox.close()
        lost = pending - self._outbox.kept()
        # Another thread may be reporting it: the process must not end before.
        if self._last_word.acquire(timeout=LAST_WORD_SECONDS):
            try:
                if lost > 0 and not self._gave_up:
                    self._gave_up = True
                    self._report.error(self._loss(lost))
            finally:  # a person may interrupt on_error
                self._last_word.release()

    def _loss(self, lost: int) -> DeliveryError:
        why = self._sender.failure or Answer(Outcome.UNAVAILABLE)
        reason = "; ".join(filter(None, ("The client was closed before Mixpanel took them", why.reason)))
        misconfigured = why.outcome is Outcome.MISCONFIGURED
        return DeliveryError(reason, lost, misconfigured=misconfigured, answer=why.text)


def outbox_stats(path: str | os.PathLike[str]) -> Stats:
    """What became of all updates that the file of an ``outbox`` has had, whoever put and sent them.

    ``requests``, ``retries`` and ``skipped`` are of a process and not in the file. Raises ``ValueError`` if it
    is another file, ``FileNotFoundError`` if there is none.
    """
    with closing(prepare(os.path.realpath(path, strict=True), OUTBOX)) as file:
        return Stats(**counts(file))


def python_exits() -> bool:
    """Whether the interpreter is ending: from before the first ``atexit`` handler on."""
    return not threading.main_thread().is_alive()


def close_all() -> None:
    """Close every pipeline of this process within ``EXIT_SECONDS``."""
    global _ended  # noqa: PLW0603 - it happens once in a process
    _ended = True
    deadline = monotonic() + EXIT_SECONDS
    pipelines = [pipeline for pipeline in _pipelines if pipeline.pid == os.getpid()]
    for end in (Pipeline.stop, Pipeline.close):
        for pipeline in pipelines:
            end(pipeline, deadline)


_ended = False
_pipelines: weakref.WeakSet[Pipeline] = weakref.WeakSet()
atexit.register(close_all)
