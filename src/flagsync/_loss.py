"""Reports what a client gives up when it ends.

Guarantee: the loss is reported once, and ``close`` does not wait for ``on_error`` for long. Where no thread can be
started any more, as while Python >= 3.12 exits, the loss is only logged.
"""

import threading

from flagsync._report import Reporter
from flagsync.exceptions import DeliveryError

LAST_REPORT_SECONDS = 0.25


class Loss:
    """Reports once what a client gives up when it ends; ``close`` waits briefly for that report."""

    def __init__(self) -> None:
        self.is_certain = False
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

    def wait(self) -> bool:
        """Return whether something was lost, after a short wait for the report: the process may end next."""
        if self.is_certain and self._reporter != threading.get_ident():
            self._is_reported.wait(LAST_REPORT_SECONDS)
        return self.is_certain
