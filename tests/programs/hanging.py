"""Cancels a call that hangs, and ends."""

import asyncio
import threading

from flagsync._call_threads import CallThreads


async def work() -> None:
    try:
        async with asyncio.timeout(0.01):
            await CallThreads(1).run(threading.Event().wait)
    except TimeoutError:
        print("cancelled")


asyncio.run(work())
