"""Reports background problems: to the logger ``flagsync`` first, then to ``on_error``.

Guarantee: an exception of a log handler or of ``on_error`` never stops the reporting thread. No message contains a
token, a payload or an identifier.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from flagsync._clock import monotonic
from flagsync.exceptions import DeliveryError

REPEAT_SECONDS = 60.0
MAX_PENDING_REACHED = "max_pending is reached, and the oldest pending updates are dropped"
MAX_TEXT = 200  # characters of an exception's text
log = logging.getLogger("flagsync")


class Reporter:
    """Reports each incident once, however often it happens.

    Args:
        on_error: Called with each error. What it raises is logged and ignored.
        repeat_seconds: How often losses that continue are reported again.

    Attributes:
        followers: Called with the ``distinct_id`` of each profile that is not updated, and the reason. They raise
            nothing and wait for nothing.
    """

    def __init__(
        self, on_error: Callable[[DeliveryError], None] | None, *, repeat_seconds: float = REPEAT_SECONDS
    ) -> None:
        self._on_error, self._repeat_seconds = on_error, repeat_seconds
        # Held for a few instructions only, and never while a handler or a callback runs.
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self._deferred = deque[DeliveryError | str]()
        self._losses: dict[str, int] = {}
        self._next_losses_at = 0.0
        self.followers: tuple[Callable[[str, str], None], ...] = ()

    def report(self, error: DeliveryError) -> None:
        """Log an error, then pass it to ``on_error``."""
        recovers = error.will_retry and not error.misconfigured
        self.log(f"{error}", logging.WARNING if recovers else logging.ERROR)
        try:
            if self._on_error is not None:
                self._on_error(error)
        except BaseException as raised:  # even pytest's own exceptions must not stop our thread
            if is_interrupt_of_application(raised):
                raise
            self.log(f"on_error raised {type(raised).__name__}, which is ignored", logging.ERROR)

    def log_only(self) -> None:
        """Call ``on_error`` no more: it would run in a thread of the application, and may block."""
        self._on_error = None

    def log(self, message: str, level: int = logging.WARNING) -> None:
        """Log a message. An exception of a log handler is ignored."""
        try:
            log.log(level, "%s", message)
        except BaseException as raised:
            if is_interrupt_of_application(raised):
                raise

    def warn_once(self, message: str, kind: str = "") -> None:
        """Log a warning, unless one of its ``kind`` was logged before. The default kind is the message."""
        with self._lock:
            is_new = (kind or message) not in self._warned
            self._warned.add(kind or message)
        if is_new:
            self.log(message)

    def defer(self, problem: DeliveryError | str) -> None:
        """Keep a problem for ``report_deferred``. Calls nobody, so a lock may be held."""
        self._deferred.append(problem)

    def count_loss(self, reason: str, count: int = 1) -> None:
        """Count lost updates for ``report_deferred``. Calls nobody, so a lock may be held."""
        with self._lock:
            self._losses[reason] = self._losses.get(reason, 0) + count

    def tell(self, distinct_id: str, reason: str) -> None:
        """Tell followers why a profile is not updated."""
        for follower in self.followers:
            follower(distinct_id, reason)

    def report_deferred(self, *, now: bool = False) -> None:
        """Report deferred problems and losses: losses at once, then once a minute while they continue."""
        while self._deferred:
            with suppress(IndexError):  # another thread took it
                problem = self._deferred.popleft()
                self.report(problem) if isinstance(problem, DeliveryError) else self.log(problem)
        if not self._losses:
            return
        with self._lock:
            if not now and monotonic() < self._next_losses_at:
                return
            self._next_losses_at = monotonic() + self._repeat_seconds
            losses, self._losses = self._losses, {}
        for reason, count in losses.items():
            self.report(DeliveryError(reason, count))


class Outage:
    """Something that has failed: reported once when it fails, and once when it works again.

    The reports are deferred, so a lock may be held.

    Attributes:
        reason: What happened last.
        needs_action: Whether it lasts until a person acts.
    """

    def __init__(self, report: Reporter) -> None:
        self._report = report
        self._lock = threading.RLock()  # held for a few instructions only
        self._kind: object = None
        self._began_at = 0.0
        self.reason, self.needs_action = "", False

    @property
    def is_active(self) -> bool:
        """Whether it has failed and not recovered yet."""
        return self._kind is not None

    @property
    def seconds(self) -> float:
        """How long it has lasted; 0.0 if it works."""
        return monotonic() - self._began_at if self.is_active else 0.0

    def begin(self, problem: DeliveryError | str, kind: object = "failed") -> None:
        """Report a failure, unless the last report was a failure of the same kind."""
        with self._lock:
            before, self._kind = self._kind, kind
            if before is None:
                self._began_at = monotonic()
            self.reason = problem.reason if isinstance(problem, DeliveryError) else problem
            self.needs_action = isinstance(problem, DeliveryError) and problem.misconfigured
        if kind != before:
            self._report.defer(problem)

    def end(self, message: str) -> None:
        """Report that it works again, if it had failed."""
        with self._lock:
            before, self._kind = self._kind, None
        if before is not None:
            self._report.defer(message)


def is_interrupt_of_application(raised: BaseException) -> bool:
    """Whether an exception is a Ctrl-C that the application's own thread must see."""
    return isinstance(raised, KeyboardInterrupt) and threading.current_thread() is threading.main_thread()


def described(raised: BaseException, secret: str = "") -> str:
    """Return the type and text of an exception from a callback, on one line and without ``secret``."""
    name = type(raised).__name__
    try:
        text = " ".join(f"{raised}".split())
    except BaseException as error:  # its own str() may raise anything, too
        if is_interrupt_of_application(error):
            raise
        return name
    text = text.replace(secret, "…") if secret else text
    return f"{name}: {text:.{MAX_TEXT}}" if text else name
