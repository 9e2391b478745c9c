"""The webhook as an ASGI application: what is particular to it. What both interfaces share is in ``test_app``."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request

from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.cohorts.webhook import answers
from flagsync.cohorts.webhook.answers import Head, Response
from flagsync.cohorts.webhook.asgi import AsgiApp
from flagsync.cohorts.webhook.refusals import BodyLimits, Refusal
from tests.support.webhook_calls import (
    ANN,
    HEADERS,
    INCOMPLETE,
    PASSWORD,
    USER,
    Message,
    basic,
    events,
    failure,
    over_asgi,
    success,
)


class AcceptsNothing:
    """Reads every body, and fails if it gets one."""

    def refuse(self, _: Head) -> Response | None:
        return None

    def answer(self, body: bytes | Refusal) -> Response:
        assert isinstance(body, Refusal), "the body was stored"
        return answers.failure(body)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as opened:
        yield opened


@pytest.fixture
def webhook(store: SQLiteStore) -> CohortWebhook:
    return CohortWebhook(store, credentials=[(USER, PASSWORD)])


def test_asgi_answers_success_when_others_can_see_the_change(tmp_path: Path, webhook: CohortWebhook) -> None:
    seen: list[list[str]] = []

    async def send(_: Message) -> None:
        seen.append([*other.members("7")])

    scope = {"type": "http", "method": "POST", "headers": [(b"authorization", basic().encode())]}
    with SQLiteStore(tmp_path / "cohorts.db") as other:
        asyncio.run(webhook.asgi(scope, events([ANN]).__anext__, send))
    assert seen == [["ann"], ["ann"]]


@pytest.mark.parametrize("parts", [[], [ANN[:20]], [ANN]], ids=["nothing", "a part", "all but its end"])
def test_asgi_client_that_goes_before_the_end_is_not_waited_for(
    webhook: CohortWebhook, store: SQLiteStore, parts: list[bytes]
) -> None:
    async def received() -> Any:
        for part in parts:
            yield {"type": "http.request", "body": part, "more_body": True}
        yield {"type": "http.disconnect"}

    [reply] = over_asgi(webhook, "POST", {"authorization": basic()}, (), received())
    assert reply.answer == failure(*INCOMPLETE)
    assert [*store.cohorts()] == []


def test_asgi_server_may_refuse_to_send_to_a_client_that_has_gone(
    webhook: CohortWebhook, store: SQLiteStore
) -> None:
    async def send(_: Message) -> None:
        raise OSError("the client has gone")

    scope = {"type": "http", "method": "POST", "headers": [(b"authorization", basic().encode())]}
    asyncio.run(webhook.asgi(scope, events([ANN]).__anext__, send))
    assert [*store.members("7")] == ["ann"]


@pytest.mark.parametrize(
    ("left", "headers"),
    [(b"", {}), (b"", {"content-length": str(len(ANN))}), (ANN[:20], {"content-length": str(len(ANN))})],
)
def test_asgi_body_of_which_a_middleware_has_left_less_may_come_again(
    webhook: CohortWebhook, left: bytes, headers: dict[str, str]
) -> None:
    [reply] = over_asgi(webhook, "POST", {"authorization": basic(), **headers}, [left])
    assert reply.answer == failure(*INCOMPLETE)


@pytest.mark.filterwarnings("ignore:Using `httpx`")
def test_asgi_body_that_a_middleware_of_starlette_has_read_is_logged_with_the_remedy(
    webhook: CohortWebhook, store: SQLiteStore, logged: Callable[[], list[str]]
) -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - as below

    app = FastAPI()
    app.mount("/mixpanel", webhook.asgi)

    @app.middleware("http")
    async def read(request: Request, call_next: Callable[[Request], Awaitable[Any]]) -> Any:
        async for _ in request.stream():
            pass
        return await call_next(request)

    with TestClient(app) as client:
        response = client.post("/mixpanel", content=ANN, headers=HEADERS)
    assert (response.status_code, response.json()) == failure(*INCOMPLETE)
    assert [*store.cohorts()] == []
    [message] = logged()
    assert "a middleware has already read the body: mount the webhook in front of it" in message


def test_asgi_body_that_comes_too_slowly_is_not_stored() -> None:
    async def received() -> Any:
        yield {"type": "http.request", "body": ANN, "more_body": True}
        await asyncio.Event().wait()

    app = AsgiApp(AcceptsNothing(), BodyLimits(seconds=0.01))
    [reply] = over_asgi(app, "POST", {}, (), received())
    assert reply.answer == failure(*INCOMPLETE)


def test_asgi_stores_in_a_thread_of_its_own() -> None:
    threads = list[threading.Thread]()

    class Accepts(AcceptsNothing):
        def answer(self, _: bytes | Refusal) -> Response:
            threads.append(threading.current_thread())
            return answers.success(None)

    [reply] = over_asgi(AsgiApp(Accepts(), BodyLimits()), "POST", {}, [ANN])
    assert reply.status == 200
    assert threads != [threading.current_thread()]


def test_asgi_refuses_other_protocols_than_http(store: SQLiteStore) -> None:
    async def nothing(*_: Any) -> Any:
        pytest.fail("there is nothing to say")

    webhook = CohortWebhook(store, credentials=None)
    with pytest.raises(ValueError, match="serves HTTP, not websocket"):
        asyncio.run(webhook.asgi({"type": "websocket"}, nothing, nothing))


@pytest.mark.filterwarnings("ignore:Using `httpx`")
@pytest.mark.parametrize("path", ["/mixpanel", "/mixpanel/"])
def test_asgi_is_mounted_by_fastapi(webhook: CohortWebhook, store: SQLiteStore, path: str) -> None:
    from fastapi.testclient import TestClient  # noqa: PLC0415 - it warns, and only a test can be told to ignore that

    app = FastAPI()
    app.get("/")(lambda: "home")
    app.mount("/mixpanel", webhook.asgi)
    with TestClient(app) as client:
        response = client.post(path, content=ANN, headers=HEADERS)
        assert (response.status_code, response.json()) == success()
        assert client.get("/").json() == "home"
    assert [*store.members("7")] == ["ann"]


def test_asgi_server_may_start_and_stop_the_webhook(webhook: CohortWebhook) -> None:
    async def received() -> Any:
        yield {"type": "lifespan.startup"}
        yield {"type": "lifespan.shutdown"}

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(webhook.asgi({"type": "lifespan"}, received().__anext__, send))
    assert sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]
