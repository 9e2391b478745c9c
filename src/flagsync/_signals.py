"""Delivers pending updates before SIGTERM ends the process.

Guarantee: the previous handler is still called, and a handler that is set later is left alone. Boundary: ``_process``
handles Python's own exit.
"""

import atexit
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from inspect import getattr_static
from types import FrameType

from flagsync._process import ProcessId, close_all, flush_all, this_process

FLUSH_SECONDS = 2.0
NOT_THE_MAIN_THREAD = (
    "close_on_sigterm() must be called in the main thread, for example where the application's module is imported: "
    "Python lets no other thread set signal handlers"
)
NOT_OF_PYTHON = (
    "close_on_sigterm() does nothing, since Python does not handle SIGTERM in this process: close the client in a "
    "shutdown hook of the server"
)
SIGTERM_SKIPS_EXIT = (
    "uvicorn ends this process with SIGTERM, which skips Python's normal exit, and no lifespan closes the client: the "
    "updates of the last second would be lost. Call flagsync.close_on_sigterm() once in each process, where the "
    "application is set up, such as in asgi.py"
)
log = logging.getLogger("flagsync")


def close_on_sigterm() -> None:
    """Deliver pending updates when SIGTERM arrives, for up to 5 seconds, before the process ends.

    By default SIGTERM ends Python without running its exit handlers, also in servers that raise the signal again after
    their own shutdown, such as uvicorn. Call this once in each process, in the main thread, where the application is
    set up. The previous handler is still called: a server shuts down as usual, and the updates of requests that it
    still serves are delivered, too. Without a previous handler, the signal ends the process once everything is
    delivered. A handler that is set later replaces this one.

    Raises:
        RuntimeError: This is not the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(NOT_THE_MAIN_THREAD)
    previous = signal.getsignal(signal.SIGTERM)
    # Python does not know a handler that an embedding C program has set, and reports a wrong one in uWSGI.
    if previous is None or "uwsgi" in sys.modules:
        log.warning(NOT_OF_PYTHON)
    elif not isinstance(previous, _Handler):
        signal.signal(signal.SIGTERM, _Handler(previous))
    _prepared.add(this_process())


def sigterm_advice() -> str | None:
    """Return advice for a server that is known to end by SIGTERM without a normal exit; None elsewhere.

    uvicorn (0.30 to 0.54) replaces an earlier handler while it serves, and puts it back before it raises the signal
    again. It has no lifespan yet while it imports the application.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    if type(server).__module__ != "uvicorn.server" or this_process() in _prepared:
        return None
    lifespan = getattr(server, "lifespan", None)
    return None if lifespan is None or _may_close(lifespan) else SIGTERM_SKIPS_EXIT


def _may_close(lifespan: object) -> bool:
    """Return whether an application may close its client in its lifespan.

    Starlette 1.10 and FastAPI 0.165 have a default lifespan, which closes nothing. ``FastAPI.include_router`` hides it.
    """
    has_failed = getattr(lifespan, "error_occurred", False) or getattr(lifespan, "error_occured", False)
    if type(lifespan).__name__ != "LifespanOn" or has_failed:
        return False
    application = getattr(getattr(lifespan, "config", None), "loaded_app", None)
    while type(application).__module__.startswith("uvicorn."):  # its own middleware
        application = getattr(application, "app", None)
    router = getattr_static(application, "router", None)  # which runs no code of the application
    is_default = type(getattr_static(router, "lifespan_context", None)).__name__ == "_DefaultLifespan"
    return not is_default or bool(getattr_static(router, "on_shutdown", ()))


class _Handler:
    """Delivers pending updates, then does what the signal did before.

    Args:
        previous: The handler that was set before.
    """

    def __init__(self, previous: Callable[[int, FrameType | None], object] | int) -> None:
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._previous == signal.SIG_DFL:
            with suppress(Exception):  # as below
                close_all()
            _end_by(number)
            return
        with suppress(Exception):  # gevent may run this in its event loop, where nothing can block
            flush_all(FLUSH_SECONDS)  # not close_all(): the process may go on
        if callable(self._previous):
            self._previous(number, frame)
            _hold_back(number)


def _end_by(number: int) -> None:
    """End the process as the signal does by default."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    # The first process of a container survives the default action: exit with the status that a shell would report.
    os._exit(128 + number)


def _hold_back(number: int) -> None:
    """Block the signal until Python exits, in case the main thread raises it again.

    uvicorn shuts down gracefully, restores the previous handler and raises the signal again. That would end the process
    before the updates of its last requests are delivered. A signal from another process still arrives, since the kernel
    gives it to a thread that does not block it.
    """
    # Windows cannot block signals, and no thread can start while Python exits or in gevent's event loop.
    with suppress(Exception):
        if number in signal.pthread_sigmask(signal.SIG_BLOCK, ()):
            return
        other = threading.Thread(target=threading.Event().wait, name="flagsync-signals", daemon=True)
        other.start()
        if other.native_id != threading.main_thread().native_id:  # otherwise it is a greenlet of gevent
            signal.pthread_sigmask(signal.SIG_BLOCK, {number})
            atexit.register(_let_go, number)


def _let_go(number: int) -> None:
    """Deliver pending updates if the signal is pending, then unblock it."""
    if number in signal.sigpending():
        close_all()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})


# The processes that have called close_on_sigterm(). Servers such as gunicorn reset handlers in a forked child.
_prepared: set[ProcessId] = set()
