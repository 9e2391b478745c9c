"""Threads in which asynchronous code runs blocking calls.

Guarantee: a call that hangs delays neither the event loop nor others that use the executor of that loop, and keeps no
process alive. A task that is cancelled does not wait for its call, which goes on; only a call that still waits for a
thread is given up. Where no thread can start any more, the call runs in the event loop. Boundary: ``_event_loops``
knows asyncio and trio.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any, Generic, TypeVar

from flagsync._event_loops import wait_until_done
from flagsync._process import PerProcess

T = TypeVar("T")


class CallThreads:
    """Runs calls in daemon threads of its own, which end when no call waits.

    The default executor of an event loop has few threads, which also resolve host names: calls that hang would occupy
    all of them. Its threads are no daemons, so that ``asyncio.run()`` and the exit of Python would wait for such calls.
    A new thread costs about 0.1 ms, little in comparison with a request, and an idle one would need an end.

    Args:
        max_threads: How many calls run at the same time; the others wait for their turn.
    """

    def __init__(self, max_threads: float) -> None:
        self._processes = PerProcess[_Threads](lambda _: _Threads(max_threads))

    async def run(self, function: Callable[[], T]) -> T:
        """Return what a function returns, or raise what it raises. It has the context variables of the caller."""
        context = copy_context()
        call = _Call(lambda: context.run(function))
        self._processes.get().start(call)
        await wait_until_done(call.future)
        try:
            return call.future.result()
        finally:
            del call  # an exception has this frame in its traceback, and would be garbage in a cycle


class _Call(Generic[T]):
    """A call and its future result."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self.future = Future[T]()

    def begin(self) -> bool:
        """Return whether the call will run: its task was not cancelled so far, and nothing gives it up from now on."""
        return self.future.set_running_or_notify_cancel()

    def run(self) -> None:
        """Settle the future."""
        future = self.future
        try:
            result = self._function()
        except BaseException as error:  # noqa: BLE001 - the task gets it
            future.set_exception(error)
        else:
            future.set_result(result)
        finally:
            del self, future  # as in ``CallThreads.run``


class _Threads:
    """The threads of one process, and the calls that wait for one."""

    def __init__(self, max_threads: float) -> None:
        self._max_threads = max_threads
        self._waiting = deque[_Call[Any]]()
        self._running = 0
        self._lock = threading.Lock()

    def start(self, call: _Call[Any]) -> None:
        """Run a call in a thread, now or when one is free."""
        with self._lock:
            if self._running >= self._max_threads:
                self._waiting.append(call)
                return
            self._running += 1
        call.begin()  # before the task can be cancelled
        try:
            threading.Thread(target=self._run, args=(call,), name="flagsync-async", daemon=True).start()
        except RuntimeError:  # Python exits, or has too many threads
            self._run(call)

    def _run(self, call: _Call[Any] | None) -> None:
        while call is not None:
            call.run()
            call = self._next()

    def _next(self) -> _Call[Any] | None:
        """Return a call that waits; None if the thread is to end."""
        with self._lock:
            while self._waiting:
                if (call := self._waiting.popleft()).begin():
                    return call
            self._running -= 1
            return None
