"""The webhook under trio; under asyncio it is in all other tests."""

import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

from flagsync._event_loops import run_within
from flagsync.cohorts import CohortWebhook, SQLiteStore
from flagsync.cohorts.webhook.asgi import AsgiApp
from flagsync.cohorts.webhook.refusals import BodyLimits
from tests.support.webhook_calls import ANN, PASSWORD, USER, Message, basic, events, over_asgi, success

SCOPE = {"type": "http", "method": "POST", "headers": [(b"authorization", basic().encode())]}
Receive = Callable[[], Awaitable[Message]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    with SQLiteStore(tmp_path / "cohorts.db") as opened:
        yield opened


@pytest.fixture
def webhook(store: SQLiteStore) -> CohortWebhook:
    return CohortWebhook(store, credentials=[(USER, PASSWORD)])


def statuses_under_trio(app: AsgiApp, receive: Receive) -> list[int]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    async def serve() -> None:
        with trio.fail_after(60):
            await app(SCOPE, receive, send)

    trio.run(serve)
    return [message["status"] for message in sent if "status" in message]


def test_trio_server_has_a_call_stored(webhook: CohortWebhook, store: SQLiteStore) -> None:
    assert statuses_under_trio(webhook.asgi, events([ANN]).__anext__) == [200]
    assert [*store.members("7")] == ["ann"]


def test_trio_server_does_not_wait_for_a_body_that_comes_too_slowly(
    webhook: CohortWebhook, store: SQLiteStore
) -> None:
    async def receive() -> Message:
        await trio.sleep_forever()
        return {}

    app = AsgiApp(webhook.asgi._receiver, BodyLimits(seconds=0.01))
    assert statuses_under_trio(app, receive) == [503]
    assert [*store.cohorts()] == []


def test_trio_server_does_not_wait_for_a_client_that_has_gone(webhook: CohortWebhook) -> None:
    async def receive() -> Message:
        await trio.lowlevel.checkpoint()
        return {"type": "http.disconnect"}

    assert statuses_under_trio(webhook.asgi, receive) == [503]


def test_trio_function_that_ends_in_time_has_a_result() -> None:
    async def read() -> str:
        await trio.lowlevel.checkpoint()
        return "all"

    assert trio.run(run_within, 60.0, read) == "all"


def test_trio_need_not_be_installed(webhook: CohortWebhook, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "trio"]:
        monkeypatch.delitem(sys.modules, name)
    [reply] = over_asgi(webhook, "POST", {"authorization": basic()}, [ANN])
    assert reply.answer == success()
