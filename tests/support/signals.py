"""What a signal handler does: it interrupts its thread at a certain point, which real signals meet by chance."""

import sys
import threading
from collections.abc import Callable
from typing import Any

WAIT_SECONDS = 10.0


def interrupted(call: Callable[[], object], at: str, handler: Callable[[], object]) -> bool:
    """Call something in a thread, and a handler once, when it calls a built-in function of the name ``at``.

    Returns whether both return, so that neither waits for a lock which the other one holds.
    """
    points, ended = [at], threading.Event()

    def profile(_: Any, event: str, function: Any) -> None:
        if event == "c_call" and function.__name__ in points:
            points.clear()
            handler()

    def run() -> None:
        sys.setprofile(profile)
        call()
        sys.setprofile(None)
        ended.set()

    threading.Thread(target=run, daemon=True).start()
    return ended.wait(WAIT_SECONDS) and not points
