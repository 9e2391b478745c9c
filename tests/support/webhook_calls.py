"""Calls of the webhook, as a WSGI and as an ASGI server would make them, and what they are answered."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, NamedTuple
from wsgiref.util import setup_testing_defaults

from flagsync.cohorts import CohortWebhook
from flagsync.cohorts.webhook.asgi import AsgiApp

USER, PASSWORD = "mixpanel", "pa:ss wörd"
MAX_BYTES, CHUNK = 32_000_000, 65536
TOO_LARGE = 413, "the body must not have more than 32,000,000 bytes"
INCOMPLETE = 503, "the body is incomplete"
UNAVAILABLE = 503, "the change cannot be stored now"
Answer = tuple[int, dict[str, Any]]
Message = MutableMapping[str, Any]


class Reply(NamedTuple):
    """What a server would send."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def answer(self) -> Answer:
        return self.status, json.loads(self.body)


class Stream:
    """A WSGI server's input: what the client sends, as it comes."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks, self._rest = iter(chunks), b""

    def read(self, size: int) -> bytes:
        self._rest = self._rest or next(self._chunks, b"")
        part, self._rest = self._rest[:size], self._rest[size:]
        return part


def over_wsgi(
    webhook: CohortWebhook, method: str, headers: dict[str, str], chunks: Iterable[bytes], **environ: Any
) -> list[Reply]:
    environ = {"REQUEST_METHOD": method, "wsgi.input": Stream(chunks), "wsgi.input_terminated": True, **environ}
    for name, value in headers.items():
        environ["HTTP_AUTHORIZATION" if name == "authorization" else name.upper().replace("-", "_")] = value
    setup_testing_defaults(environ)
    started: list[tuple[str, list[tuple[str, str]]]] = []
    parts = webhook.wsgi(environ, lambda status, headers: started.append((status, headers)))
    return [Reply(int(status[:3]), headers, b"".join(parts)) for status, headers in started]


async def events(chunks: Iterable[bytes]) -> Any:
    for chunk in chunks:
        yield {"type": "http.request", "body": chunk, "more_body": True}
    yield {"type": "http.request"}


def over_asgi(
    webhook: CohortWebhook | AsgiApp,
    method: str,
    headers: dict[str, str],
    chunks: Iterable[bytes],
    received: Any = None,
) -> list[Reply]:
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "headers": raw}
    app = webhook.asgi if isinstance(webhook, CohortWebhook) else webhook
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def serve() -> None:
        async with asyncio.timeout(60):
            await app(scope, (received or events(chunks)).__anext__, send)

    asyncio.run(serve())
    assert [message["type"] for message in sent] in ([], ["http.response.start", "http.response.body"])
    return [
        Reply(
            start["status"], [(name.decode(), value.decode()) for name, value in start["headers"]], end["body"]
        )
        for start, end in zip(sent[::2], sent[1::2], strict=True)
    ]


INTERFACES: dict[str, Callable[..., list[Reply]]] = {"wsgi": over_wsgi, "asgi": over_asgi}


def basic(user: str = USER, password: str = PASSWORD) -> str:
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def call(action: object = "add_members", *members: object, **further: Any) -> bytes:
    listed = [{"mixpanel_distinct_id": member} for member in members]
    parameters = {"mixpanel_cohort_id": "7", "mixpanel_cohort_name": "vips", "members": listed, **further}
    return json.dumps({"action": action, "parameters": parameters}).encode()


ANN = call("add_members", "ann")
HEADERS = {"Authorization": basic(), "Content-Type": "application/json"}


def success(action: str = "add_members") -> Answer:
    return 200, {"action": action, "status": "success"}


def failure(code: int, message: str, action: str | None = None) -> Answer:
    return code, {"action": action, "status": "failure", "error": {"message": message, "code": code}}
