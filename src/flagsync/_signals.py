"""SIGTERM: what is pending is delivered before the signal ends the process.

Guarantee: the handler that is there is called as before, and one that is set later is left alone. Boundary: Python's
own exit is ``_process``'s.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

from flagsync._process import close_all, flush_all

FLUSH_SECONDS = 2.0
NOT_THE_MAIN_THREAD = (
    "close_on_sigterm() must be called in the main thread, such as where the module of the application is imported: "
    "Python lets no other thread handle signals"
)
NOT_OF_PYTHON = (
    "close_on_sigterm() does nothing, since SIGTERM is not handled by Python in this process: close the client where "
    "the server lets you"
)
SIGTERM_SKIPS_EXIT = (
    "uvicorn ends this process by SIGTERM past Python's exit, and the application has no lifespan in which it could "
    "close the client: what was evaluated in the last second would be lost. Call flagsync.close_on_sigterm() once, "
    "where the application is set up, such as in asgi.py"
)
log = logging.getLogger("flagsync")


def close_on_sigterm() -> None:
    """Have SIGTERM deliver what is pending before it ends this process, within 5 seconds.

    Python ends at SIGTERM without a word, and so do servers that raise it again after their own shutdown, such as
    uvicorn. Call this once in each process, in the main thread, where the application is set up. What handled SIGTERM
    before is called, too: a server shuts down as it does, and what it still serves is delivered as well. Where
    nothing handled it, the process ends by the signal once all is delivered. Whoever sets a handler afterwards
    replaces this one.

    Raises:
        RuntimeError: This is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(NOT_THE_MAIN_THREAD)
    previous = signal.getsignal(signal.SIGTERM)
    # Python does not know the handler of a C program in which it is embedded, and shows a wrong one in uWSGI.
    if previous is None or "uwsgi" in sys.modules:
        log.warning(NOT_OF_PYTHON)
    elif not isinstance(previous, _Handler):
        signal.signal(signal.SIGTERM, _Handler(previous))


def sigterm_advice() -> str | None:
    """Return what to add where a server is known to end by SIGTERM past Python's exit; None elsewhere.

    Whoever has a lifespan closes the client there (uvicorn 0.30 to 0.54).
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if type(server).__module__ != "uvicorn.server":
        return None
    lifespan = getattr(server, "lifespan", None)
    has_failed = getattr(lifespan, "error_occurred", False) or getattr(lifespan, "error_occured", False)
    has_lifespan = type(lifespan).__name__ == "LifespanOn" and not has_failed
    return None if has_lifespan else SIGTERM_SKIPS_EXIT


class _Handler:
    """Delivers what is pending, and does what the signal did before.

    Args:
        previous: What Python had done at the signal.
    """

    def __init__(self, previous: Callable[[int, FrameType | None], object] | int) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._previous == signal.SIG_DFL:
            with suppress(Exception):  # as below
                close_all()
            _end_by(number)
            return
        with suppress(Exception):  # gevent's event loop, which may run this, waits for nothing
            flush_all(FLUSH_SECONDS)  # and no more: the handler may let the process go on
        if callable(self._previous):
            self._previous(number, frame)
            _hold_back(number)


def _end_by(number: int) -> None:
    """End the process as the signal does by default."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    os._exit(128 + number)  # the first process of a container has no default action: what a shell would say


def _hold_back(number: int) -> None:
    """Let the signal wait for Python's exit if the main thread raises it again.

    uvicorn shuts down gracefully, puts back what handled the signal before it, and raises it: that would end the
    process before what it has served meanwhile is delivered. A signal from outside goes to another thread, since the
    kernel chooses one that does not block it.
    """
    # Windows blocks no signals; no thread starts while Python exits, nor from the event loop of gevent.
    with suppress(Exception):
        if number in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            return
        other = threading.Thread(target=threading.Event().wait, name="flagsync-signals", daemon=True)
        other.start()
        if other.native_id != threading.main_thread().native_id:  # else gevent has made it a greenlet
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            atexit.register(_let_go, number)


def _let_go(number: int) -> None:
    """Deliver what is pending if the signal waits, and let it come."""
    if number in signal.sigpending():
        close_all()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
