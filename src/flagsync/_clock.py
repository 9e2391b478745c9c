"""The clocks for deadlines, pauses and records.

Guarantee: they keep running while a test freezes the time. freezegun replaces the functions of ``time`` in every module
that has one of them, ``monotonic`` included, so that no deadline would ever come; it does not find a partial object.
time-machine leaves the monotonic clock alone. On Linux ``monotonic`` is the clock of ``time.monotonic()``, one for all
processes of a host.
"""

import time as clocks
from collections.abc import Callable
from functools import partial

# freezegun may be active when this is imported. It does not replace clock_gettime, which Windows lacks.
HAS_CLOCKS = hasattr(clocks, "clock_gettime")

monotonic: Callable[[], float] = (
    partial(clocks.clock_gettime, clocks.CLOCK_MONOTONIC) if HAS_CLOCKS else partial(clocks.monotonic)
)
time: Callable[[], float] = (
    partial(clocks.clock_gettime, clocks.CLOCK_REALTIME) if HAS_CLOCKS else partial(clocks.time)
)
