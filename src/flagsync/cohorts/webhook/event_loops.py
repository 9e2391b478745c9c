"""What the webhook needs from an event loop: asyncio's, or trio's, which hypercorn can use.

Guarantee: trio need not be installed. A call that is cancelled does not wait for its thread.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
A = TypeVar("A")


async def run_in_thread(function: Callable[[A], T], argument: A) -> T:
    """Run a blocking function in a thread, and return its result."""
    if _runs_trio():
        import trio  # noqa: PLC0415 - already imported, if it runs

        return await trio.to_thread.run_sync(function, argument, abandon_on_cancel=True)
    return await asyncio.to_thread(function, argument)


async def run_within(seconds: float, function: Callable[[], Awaitable[T]]) -> T:
    """Return the result of an async function; raise ``TimeoutError`` if it takes longer than ``seconds``."""
    if _runs_trio():
        import trio  # noqa: PLC0415

        with trio.move_on_after(seconds):
            return await function()
        raise TimeoutError
    async with asyncio.timeout(seconds):
        return await function()


def _runs_trio() -> bool:
    """Return whether the current task is one of trio's."""
    if "trio" not in sys.modules:
        return False
    import trio  # noqa: PLC0415

    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
