"""Tasks of asyncio and trio, and the threads in which their calls run."""

import threading
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel

Run = Callable[[Callable[[], Awaitable[Any]]], Any]


async def until(holds: Callable[[], object]) -> None:
    """Let the event loop go on until a condition holds, which it cannot do while a call blocks it."""
    with anyio.fail_after(60):
        while not holds():
            await anyio.lowlevel.checkpoint()


def calls_in_threads() -> list[threading.Thread]:
    """Return the threads that run calls of tasks."""
    return [thread for thread in threading.enumerate() if thread.name == "flagsync-async"]


def join_threads() -> None:
    """Wait until no call of a task runs in a thread."""
    for thread in calls_in_threads():
        thread.join()
