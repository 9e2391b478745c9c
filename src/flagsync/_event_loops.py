"""What asynchronous code needs from an event loop: asyncio's, or trio's.

Guarantee: trio need not be installed.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Protocol, TypeVar

T = TypeVar("T")


class Event(Protocol):
    """What a task waits for."""

    def set(self) -> None:
        """Wake the task."""

    async def wait(self) -> object:
        """Wait until the event is set."""


async def wait_until_done(future: Future[T]) -> None:
    """Wait until a thread has settled a future. If the task is cancelled, so is the future, unless it already runs."""
    done, run_soon = _event()

    def wake(_: object) -> None:
        with suppress(RuntimeError):  # the event loop has ended, and with it the task
            run_soon(done.set)

    future.add_done_callback(wake)
    try:
        await done.wait()
    finally:
        future.cancel()


async def run_within(seconds: float, function: Callable[[], Awaitable[T]]) -> T:
    """Return the result of an async function; raise ``TimeoutError`` if it takes longer than ``seconds``."""
    if _runs_trio():
        import trio  # noqa: PLC0415 - already imported, if it runs

        with trio.move_on_after(seconds):
            return await function()
        raise TimeoutError
    async with asyncio.timeout(seconds):
        return await function()


def _event() -> tuple[Event, Callable[[Callable[[], None]], object]]:
    """Return an event of the current loop, and the function by which a thread has that loop call something."""
    if _runs_trio():
        import trio  # noqa: PLC0415

        return trio.Event(), trio.lowlevel.current_trio_token().run_sync_soon
    return asyncio.Event(), asyncio.get_running_loop().call_soon_threadsafe


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
