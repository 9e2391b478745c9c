"""The webhook as an ASGI application: an object, since servers and frameworks take a method for something else.

Guarantee: nothing blocks the event loop. Boundary: what a request gets is the webhook's to say.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from flagsync.cohorts._answers import (
    BODY_SECONDS,
    INCOMPLETE,
    MAX_BODY_BYTES,
    TOO_LARGE,
    Head,
    RefusedError,
    Response,
)

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class AsgiApp:
    """Admits a request, reads its body, and lets a thread take it: storing blocks."""

    def __init__(self, admit: Callable[[Head], None], take: Callable[[bytes], Response]) -> None:
        self._admit, self._take = admit, take

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or start and end with a server."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the cohort webhook takes HTTP, and no {scope['type']}")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        names = (b"authorization", b"content-type", b"content-length")
        try:
            self._admit(Head(scope["method"], *(headers.get(name, "") for name in names)))
            body = await _receive(receive)
            response = await asyncio.to_thread(self._take, body)
        except RefusedError as refused:
            response = refused.response
        except ConnectionError:
            return  # the client has gone
        raw = [(name.lower().encode(), value.encode()) for name, value in response.headers]
        await send({"type": "http.response.start", "status": response.status.value, "headers": raw})
        await send({"type": "http.response.body", "body": response.body})


async def _receive(receive: Receive) -> bytes:
    """The body of an ASGI request; ``ConnectionError`` if the client goes before its end."""
    chunks, size, more = list[bytes](), 0, True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more:
                event = await receive()
                if event["type"] == "http.disconnect":
                    raise ConnectionError
                chunks.append(event.get("body", b""))
                more = event.get("more_body", False)
                size += len(chunks[-1])
                if size > MAX_BODY_BYTES:
                    raise RefusedError(*TOO_LARGE)
    except TimeoutError:
        raise RefusedError(*INCOMPLETE) from None
    return b"".join(chunks)


async def _live(receive: Receive, send: Send) -> None:
    """Start and end with a server that serves nothing else."""
    for step in ("startup", "shutdown"):
        await receive()
        await send({"type": f"lifespan.{step}.complete"})
