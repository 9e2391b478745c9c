"""An ASGI application that closes its client in its lifespan; it evaluates for the user in the query."""

from collections.abc import Awaitable, Callable
from typing import Any

from application import build

client = build()


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[Any], Awaitable[None]],
) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        client.close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    client.get_identity_flags(scope["query_string"].decode().removeprefix("user="))
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body"})
