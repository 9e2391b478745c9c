"""A background thread that starts on demand and runs once; a caller can also run it in its own thread.

Guarantee: nothing that a step raises ends the thread silently. ``wake`` and ``stop`` take no lock, so that a
finalizer, which the garbage collector may run in any thread at any moment, may call them.
"""

import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from math import inf
from queue import Empty, SimpleQueue

from flagsync._clock import monotonic
from flagsync._process import this_process
from flagsync._report import Reporter, is_interrupt_of_application

ERROR_PAUSE_SECONDS = 1.0


def time_left(deadline: float) -> float:
    """Return the seconds until a deadline, as waiting functions accept them."""
    return max(0.0, min(deadline - monotonic(), threading.TIMEOUT_MAX))


class _Changes:
    """Lets callers wait until what another thread changes meets a condition."""

    def __init__(self) -> None:
        # Entered directly, and not by the condition, whose own method would keep it if a signal handler raised there.
        self.lock = threading.RLock()
        self._condition = threading.Condition(self.lock)

    def announce(self) -> None:
        """Have those who wait check their conditions again."""
        with self.lock:
            self._condition.notify_all()

    def wait_for(self, holds: Callable[[], bool], deadline: float) -> bool:
        """Wait until a condition holds; False at the deadline."""
        with self.lock:
            return self._condition.wait_for(holds, time_left(deadline))


class Worker:
    """Repeats a step in a thread of its own.

    Args:
        name: The name of the thread.
        step: Does some work, and returns the seconds after which to repeat it if nobody calls ``wake``, or
            None to end.
        report: Where an exception of the step is reported.
        at_end: Called in the thread when it ends, for whatever reason.
    """

    def __init__(
        self,
        name: str,
        step: Callable[[], float | None],
        report: Reporter,
        at_end: Callable[[], None] = lambda: None,
    ) -> None:
        self._name, self._step, self._report, self._at_end = name, step, report, at_end
        # SimpleQueue.put is reentrant: a finalizer may call it while the same thread is inside it.
        self._wake_ups = SimpleQueue[None]()
        self._changes = _Changes()
        self._claim_to_run = threading.Lock()
        self._runner: int | None = None
        self._process = this_process()
        self.is_started = self.is_ended = self.is_stopping = False

    def start(self) -> bool:
        """Start the thread, unless it was started; False if Python is exiting and cannot start one."""
        with self._changes.lock:
            if not self.is_started:
                try:
                    threading.Thread(target=self.run, name=self._name, daemon=True).start()
                except RuntimeError:
                    return False
                self.is_started = True
        return True

    def start_or_run(self) -> None:
        """Start the thread; where none can start, repeat the step in the calling thread instead, until it returns None.

        Then ``on_error`` is not called any more, since it would hold up the calling thread.
        """
        if not self.start():
            self._report.log_only()
            self.run()

    def wake(self) -> None:
        """Have the step repeated now. Takes no lock."""
        if self._wake_ups.empty():
            self._wake_ups.put(None)

    def stop(self) -> None:
        """Have the thread end once its step agrees. Takes no lock."""
        self.is_stopping = True
        self.wake()

    def run(self) -> None:
        """Repeat the step in the calling thread until it returns None. Does nothing the second time."""
        if not self._claim_to_run.acquire(blocking=False):
            return
        self._runner = threading.get_ident()
        try:
            while (seconds := self._run_step()) is not None:
                self._sleep(seconds)
        finally:
            if this_process() == self._process:
                self._end()

    def is_current(self) -> bool:
        """Whether the calling thread is the one that runs the step."""
        return self._runner == threading.get_ident()

    def announce(self) -> None:
        """Have ``wait_for`` check its condition again."""
        self._changes.announce()

    def wait_for(self, holds: Callable[[], bool], deadline: float) -> bool:
        """Wait until a condition holds, whose change the step must announce; False at the deadline."""
        return self._changes.wait_for(holds, deadline)

    def join(self, deadline: float) -> bool:
        """Wait until ``run`` has returned; False at the deadline."""
        return self.wait_for(lambda: self.is_ended, deadline)

    def _end(self) -> None:
        try:
            self._at_end()
        finally:
            self._runner, self.is_ended = None, True
            self.announce()

    def _run_step(self) -> float | None:
        # gevent's greenlets survive a fork: the copy in a child must not do the work of the parent.
        if this_process() != self._process:
            return None
        try:
            return self._step()
        except BaseException as error:
            if is_interrupt_of_application(error):
                raise
            self._report.warn_once(
                f"The thread {self._name} continues after an unexpected {type(error).__name__}"
            )
            return None if self.is_stopping else ERROR_PAUSE_SECONDS

    def _sleep(self, seconds: float) -> None:
        """Wait for a wake-up or the timeout, then discard all further wake-ups."""
        try:
            self._wake_ups.get(timeout=None if seconds == inf else min(seconds, threading.TIMEOUT_MAX))
            while True:
                self._wake_ups.get_nowait()
        except Empty:
            pass


class Flush:
    """A caller that waits for a worker."""

    def __init__(self) -> None:
        self.is_done = False


class Flushes:
    """The callers that wait until a worker has done all the work it had when they called."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._waiting: list[Flush] = []

    @property
    def are_waiting(self) -> bool:
        """Whether any caller waits."""
        return bool(self._waiting)

    def wait(self, deadline: float, is_futile: Callable[[], bool] = lambda: False) -> bool:
        """Wait until the step has called ``finish``; False at the deadline, or if the worker ends before.

        Args:
            deadline: ``time.monotonic()``.
            is_futile: Whether to stop waiting earlier. The step must announce a change.
        """
        flush = Flush()
        self._waiting.append(flush)
        try:
            self._worker.wake()
            self._worker.wait_for(lambda: flush.is_done or self._worker.is_ended or is_futile(), deadline)
        finally:
            self._forget(flush)
        return flush.is_done

    def waiting(self) -> list[Flush]:
        """Return the callers that wait now."""
        return [*self._waiting]

    def finish(self, flushes: Iterable[Flush]) -> None:
        """Release some callers."""
        for flush in flushes:
            flush.is_done = True
            self._forget(flush)
        self._worker.announce()

    def _forget(self, flush: Flush) -> None:
        with suppress(ValueError):  # both the caller and the worker do this
            self._waiting.remove(flush)
