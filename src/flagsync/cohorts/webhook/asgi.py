"""The webhook as an ASGI application: an object, since servers and frameworks take a method for something else.

Guarantee: nothing blocks the event loop. Boundary: which response a request gets is decided by ``app``.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from flagsync.cohorts.webhook.answers import BodyLimits, Head, Response, incomplete, too_large

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Receiver(Protocol):
    """What decides on requests."""

    def refuse(self, head: Head) -> Response | None:
        """Return the response to a request whose body need not be read; None if it is to be read."""

    def store(self, body: bytes) -> Response:
        """Store a call and return the response to it. May block."""


class AsgiApp:
    """Reads requests, and has a thread store them, since that blocks.

    Args:
        receiver: What decides on them.
        limits: How large a body may be.
    """

    def __init__(self, receiver: Receiver, limits: BodyLimits) -> None:
        self._receiver, self._limits = receiver, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and end with a server."""
        if scope["type"] == "lifespan":
            await _start_and_end(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the cohort webhook serves HTTP, not {scope['type']}")
        response = await self._respond(scope, receive)
        if response is None:
            return
        raw = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        await send({"type": "http.response.start", "status": response.status.value, "headers": raw})
        await send({"type": "http.response.body", "body": response.body})

    async def _respond(self, scope: Scope, receive: Receive) -> Response | None:
        """Return the response; None if the client has gone."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        names = (b"authorization", b"content-type", b"content-length")
        refusal = self._receiver.refuse(Head(scope["method"], *(headers.get(name, "") for name in names)))
        if refusal is not None:
            return refusal
        body = await self._receive(receive)
        return await asyncio.to_thread(self._receiver.store, body) if isinstance(body, bytes) else body

    async def _receive(self, receive: Receive) -> bytes | Response | None:
        """Return the body; or the response to a bad one, or None if the client goes before its end."""
        chunks, size, more = list[bytes](), 0, True
        try:
            async with asyncio.timeout(self._limits.seconds):
                while more:
                    event = await receive()
                    if event["type"] == "http.disconnect":
                        return None
                    chunks.append(event.get("body", b""))
                    more = event.get("more_body", False)
                    size += len(chunks[-1])
                    if size > self._limits.max_bytes:
                        return too_large(self._limits)
        except TimeoutError:
            return incomplete()
        return b"".join(chunks)


async def _start_and_end(receive: Receive, send: Send) -> None:
    """Start and end with a server that serves nothing else."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
