"""Clients in tests of an application that stop its clocks with freezegun: deadlines come, updates arrive."""

import ast
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

import flagsync as package
from flagsync import FlagSync
from flagsync.testing import MixpanelServer
from tests.support.processes import Ended, end, names, sent
from tests.support.sockets import free_port

LONG_SECONDS = 30.0
Build = Callable[..., FlagSync]


def clock() -> float:
    return time.clock_gettime(time.CLOCK_MONOTONIC)  # which freezegun leaves alone


@pytest.fixture(params=[False, True], ids=["stopped", "ticking"])
def frozen(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The time of day and the clocks stand still, or go on from another day."""
    with freeze_time("2026-01-01", tick=request.param) as factory:
        yield factory


def in_main_thread(call: Callable[[], object]) -> None:
    call()


def in_another_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join(LONG_SECONDS)
    assert not thread.is_alive()


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("where", [in_main_thread, in_another_thread])
@pytest.mark.parametrize("method", ["flush", "close"])
def test_deadline_comes_while_the_clock_is_frozen(
    method: str, where: Callable[[Callable[[], object]], None], flagsync: Build
) -> None:
    client = flagsync(mixpanel_url=f"http://127.0.0.1:{free_port()}", flush_interval_seconds=0.01)
    client.get_identity_flags("user")
    results: list[tuple[bool, float]] = []

    def call() -> None:
        began = clock()
        results.append((getattr(client, method)(0.3), clock() - began))

    where(call)
    [(is_settled, seconds)] = results
    assert not is_settled
    # A client that closes gives up at once if it cannot try again before its deadline.
    assert (0.3 if method == "flush" else 0.0) <= seconds < LONG_SECONDS / 2


@pytest.mark.usefixtures("frozen")
@pytest.mark.parametrize("where", [in_main_thread, in_another_thread])
@pytest.mark.parametrize("outbox", [False, True], ids=["memory", "file"])
def test_updates_arrive_while_the_clock_is_frozen(
    outbox: bool,
    where: Callable[[Callable[[], object]], None],
    flagsync: Build,
    mixpanel: MixpanelServer,
    tmp_path: Path,
) -> None:
    client = flagsync(outbox=tmp_path / "outbox.db" if outbox else None, flush_interval_seconds=0.05)
    where(lambda: [client.get_identity_flags(user) for user in names("user", 3)])
    assert mixpanel.wait_for_requests(1, LONG_SECONDS)  # without a flush: the interval ends
    assert client.flush(LONG_SECONDS)
    assert sent(mixpanel) == Counter(names("user", 3))


def test_updates_arrive_after_an_outage_while_the_clock_is_moved(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=0.01)
    mixpanel.fail(times=1, status=503, headers={"Retry-After": "0.1"})
    client.get_identity_flags("before")
    with freeze_time("2026-01-01") as frozen:
        client.get_identity_flags("frozen")
        frozen.move_to("2031-01-01")
        client.get_identity_flags("later")
        frozen.move_to("2021-01-01")
        client.get_identity_flags("earlier")
    assert client.flush(LONG_SECONDS)
    assert {*mixpanel.profiles} == {"before", "frozen", "later", "earlier"}


@pytest.mark.parametrize("imported", ["before", "after"])
def test_process_that_ends_with_a_frozen_clock_delivers(
    imported: str, mixpanel: MixpanelServer, start: Callable[..., Any]
) -> None:
    ended: Ended = end(start("frozen.py", imported))
    assert ended[:2] == (0, ["True"])
    assert sent(mixpanel) == Counter(["flushed", "last"])


def test_no_module_has_a_clock_that_freezegun_finds() -> None:
    found = [
        f"{path.name}: {alias.name}"
        for path in Path(package.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for alias in node.names
        if alias.name in ("monotonic", "time") and path.name != "_clock.py"
    ]
    assert found == []
