"""The clocks of all deadlines, pauses and records: tools that stop the time in tests do not stop them.

freezegun puts its own functions in place of those of ``time``, in every module that has one of them, and stops
``monotonic`` with the time of day: no deadline would ever come. It does not find a partial object. time-machine leaves
the monotonic clock alone. On Linux it is that of ``time.monotonic()``, one for all processes of a host.
"""

import time as clocks
from collections.abc import Callable
from functools import partial

# freezegun may be at work already when this is imported; it has nothing in place of clock_gettime, which Windows lacks.
HAS_CLOCKS = hasattr(clocks, "clock_gettime")

monotonic: Callable[[], float] = (
    partial(clocks.clock_gettime, clocks.CLOCK_MONOTONIC) if HAS_CLOCKS else partial(clocks.monotonic)
)
time: Callable[[], float] = (
    partial(clocks.clock_gettime, clocks.CLOCK_REALTIME) if HAS_CLOCKS else partial(clocks.time)
)
