"""Reports what a client gives up when it ends.

Guarantee: the loss is reported once, and ``close`` keeps its deadline whatever ``on_error`` does. Where no thread can
be started any more, as while Python >= 3.12 exits, the loss is only logged.
"""

import threading

from flagsync._process import REPORT_SECONDS
from flagsync._report import Reporter
from flagsync._worker import time_left
from flagsync.exceptions import DeliveryError


class Loss:
    """Reports once what a client gives up when it ends; ``close`` waits briefly for that report.

    Args:
        report_seconds: How long it waits at most.
    """

    def __init__(self, report_seconds: float = REPORT_SECONDS) -> None:
        self.is_certain, self._report_seconds = False, report_seconds
        self._once, self._is_reported = threading.Lock(), threading.Event()
        self._reporter: int | None = None

    def report(self, report: Reporter, error: DeliveryError, *, in_thread: bool) -> None:
        """Report a loss the first time. With ``in_thread``, the caller does not wait for ``on_error``."""
        self.is_certain = True
        if not self._once.acquire(blocking=False):
            return

        def run() -> None:
            self._reporter = threading.get_ident()
            try:
                report.report(error)
            finally:
                self._is_reported.set()

        if in_thread:
            try:
                threading.Thread(target=run, name="flagsync-report", daemon=True).start()
            except RuntimeError:  # Python is exiting
                report.log_only()
                run()
        else:
            run()

    def wait(self, deadline: float) -> bool:
        """Return whether something was lost, after a short wait for its report, which ends with the process."""
        if self.is_certain and self._reporter != threading.get_ident():
            self._is_reported.wait(min(time_left(deadline), self._report_seconds))
        return self.is_certain
