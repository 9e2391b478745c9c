"""The webhook as an ASGI application: an object, since servers and frameworks mistake a method for something else.

Guarantee: nothing blocks the event loop. Boundary: ``app`` decides which response a request gets.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

from flagsync._call_threads import CallThreads
from flagsync._event_loops import run_within
from flagsync.cohorts.webhook.answers import Head, Response
from flagsync.cohorts.webhook.refusals import BodyLimits, Refusal, not_whole, too_large

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


MAX_STORING = 10  # calls at the same time; a store writes one at a time, whatever their number


class Receiver(Protocol):
    """What decides on requests."""

    def refuse(self, head: Head) -> Response | None:
        """Return the response to a request whose body need not be read; None if it is to be read."""

    def answer(self, body: bytes | Refusal) -> Response:
        """Store a call, unless its body is to be refused, and return the response to it. May block."""


class AsgiApp:
    """Reads requests, and has a thread store them, since that blocks.

    Args:
        receiver: Decides on the requests.
        limits: How large a body may be.
    """

    def __init__(self, receiver: Receiver, limits: BodyLimits) -> None:
        self._receiver, self._limits = receiver, limits
        self._threads = CallThreads(MAX_STORING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or the events of a server that starts and ends."""
        if scope["type"] == "lifespan":
            await _start_and_end(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the cohort webhook serves HTTP, not {scope['type']}")
        response = await self._respond(scope, receive)
        raw = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        with suppress(OSError):  # the client has gone
            await send({"type": "http.response.start", "status": response.status.value, "headers": raw})
            await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        names = (b"authorization", b"content-type", b"content-length")
        head = Head(scope["method"], *(headers.get(name, "") for name in names))
        refused = self._receiver.refuse(head)
        if refused is not None:
            return refused
        body = await self._receive(receive, head.content_length)
        return await self._threads.run(lambda: self._receiver.answer(body))

    async def _receive(self, receive: Receive, length: str) -> bytes | Refusal:
        """Return the body, or why there is none that can be stored."""
        body = bytearray()
        try:
            is_whole = await run_within(self._limits.seconds, lambda: self._read(receive, body))
        except TimeoutError:
            is_whole = False
        if len(body) > self._limits.max_bytes:
            return too_large(self._limits)
        # A middleware that has read the body may leave an empty one behind.
        return bytes(body) if is_whole and len(body) >= int(length or 1) else not_whole(body)

    async def _read(self, receive: Receive, body: bytearray) -> bool:
        """Append what arrives to the body; False if it stays incomplete."""
        while len(body) <= self._limits.max_bytes:
            event = await receive()
            if event["type"] == "http.disconnect":
                return False
            body += event.get("body", b"")
            if not event.get("more_body", False):
                return True
        return False


async def _start_and_end(receive: Receive, send: Send) -> None:
    """Answer the start and the end of a server that serves nothing else."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
