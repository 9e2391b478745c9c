"""Faults on real sockets: each is told, nothing good is lost, and what comes after it gets through."""

import re
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import cycle, product
from pathlib import Path
from typing import Any

import pytest
from flagsmith import Flagsmith
from flagsmith.models import Flag

from flagsync import DeliveryError, FlagSync
from flagsync._delivery.destinations import Backoff
from flagsync._delivery.sender import Sending
from flagsync._options import Tuning
from flagsync.testing import MixpanelServer

Build = Callable[..., FlagSync]
OK = b"HTTP/1.1 200 OK\r\n"


class Impatient(FlagSync):
    """A client that retries at once, and gives a request little time."""

    _tuning = Tuning(sending=Sending(request_seconds=0.3, backoff=Backoff(first_seconds=0.0, max_seconds=0.0)))


@pytest.fixture
def flagsync(offline: Flagsmith, mixpanel: MixpanelServer) -> Iterator[Build]:
    """Builds impatient clients of the offline Flagsmith and the loopback Mixpanel; closes them."""
    clients = list[FlagSync]()

    def build(**options: Any) -> FlagSync:
        clients.append(Impatient(offline, "project-token", **{"mixpanel_url": mixpanel.url, **options}))
        return clients[-1]

    yield build
    for client in clients:
        client.close(0.1)


@contextmanager
def raw_server(answer: bytes, *, reset: bool = False) -> Iterator[str]:
    """Reads a request, sends these bytes and hangs up, with a reset if told so; then does it again."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, suppress(OSError):
                    connection.recv(65536)
                    connection.sendall(answer)
                    if reset:
                        linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    with suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


@contextmanager
def never_accepts() -> Iterator[str]:
    """A server whose backlog is full, so that nobody gets connected."""
    with ExitStack() as opened:
        listener = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = opened.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def nowhere() -> Iterator[str]:
    yield "http://mixpanel.invalid"


@contextmanager
def refused() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    yield f"http://127.0.0.1:{port}"


@contextmanager
def no_tls() -> Iterator[str]:
    with raw_server(OK) as url:
        yield url.replace("http", "https")


FAULTY: dict[str, Callable[[], Any]] = {
    "refused": refused,
    "DNS failure": nowhere,
    "connect hang": never_accepts,
    "closed without an answer": lambda: raw_server(b""),
    "reset in the headers": lambda: raw_server(OK + b"Content-Le", reset=True),
    "reset in the body": lambda: raw_server(OK + b"Content-Length: 60\r\n\r\n{", reset=True),
    "half a body": lambda: raw_server(OK + b"Content-Length: 60\r\n\r\n{"),
    "no HTTP": lambda: raw_server(b"220 smtp.example.com ready\r\n"),
    "TLS failure": no_tls,
}


@pytest.mark.parametrize("fault", FAULTY)
def test_unreachable_server_is_reported_once_and_loses_nothing(
    fault: str, flagsync: Build, mixpanel: MixpanelServer
) -> None:
    told, errors = threading.Event(), list[DeliveryError]()

    def note(error: DeliveryError) -> None:
        errors.append(error)
        told.set()

    with FAULTY[fault]() as url:
        client = flagsync(mixpanel_url=url, on_error=note, flush_interval_seconds=0.01)
        client.get_identity_flags("user_1")
        assert told.wait(10)
        client.close(0)
    # Of a reset, what came before it may be read or not.
    assert re.match(r"Mixpanel (cannot be reached|does not accept updates \(HTTP 200, not)", str(errors[0]))
    assert (errors[0].count, errors[0].will_retry, errors[0].identifiers) == (1, True, ("user_1",))


PASSING: list[dict[str, Any]] = [
    {"delay_seconds": 60.0},  # longer than a request may take
    {"drop": True},
    *({"status": 200, "body": body} for body in ("{}", "[]", "", "<html>", "null", '{"status": "1"}', "2")),
    {"status": 200, "body": b"caf\xe9"},
    {"status": 200, "body": "1", "headers": {"Content-Encoding": "gzip"}},
    {"status": 500, "body": "x" * 1_000_000},
    *({"status": status} for status in (301, 302, 308, 401, 403, 404, 408, 425, 429, 500, 502, 503, 504)),
    *(
        {"status": 429, "headers": {"Retry-After": value}}
        for value in ("0", "0.01", "-5", "soon", "Mon, 23 Nov 2020 00:00:00 GMT")
    ),
]


@pytest.mark.parametrize("fault", PASSING, ids=str)
def test_temporary_fault_is_reported_once_and_everything_arrives_in_order(
    fault: dict[str, Any], flagsync: Build, mixpanel: MixpanelServer, logged: Callable[[], list[str]]
) -> None:
    errors: list[DeliveryError] = []
    client = flagsync(on_error=errors.append, flush_interval_seconds=60)
    mixpanel.fail(times=2, **fault)
    client.get_identity_flags("user_1", {"plan": "premium"})
    client.get_identity_flags("user_2")
    assert client.flush()
    client.get_identity_flags("user_1", {"plan": "free"})
    assert client.flush()
    assert [(error.count, error.will_retry) for error in errors] == [(2, True)]
    assert [message for message in logged() if message.startswith("Mixpanel accepts")] == [
        "Mixpanel accepts updates again; failed attempts: 2"
    ]
    assert {*mixpanel.profiles} == {"user_1", "user_2"}
    assert mixpanel.profiles["user_1"]["seg_override"] is False
    assert (client.stats().delivered, client.stats().requests, client.stats().retries) == (3, 4, 2)


@pytest.mark.parametrize("fault", [{"status": 400}, {"status": 413}, {"status": 200, "body": "0"}], ids=str)
@pytest.mark.parametrize("position", [0, 5, 10])
def test_bad_update_is_rejected_alone_wherever_it_is(
    position: int, fault: dict[str, Any], flagsync: Build, mixpanel: MixpanelServer
) -> None:
    errors: list[DeliveryError] = []
    client = flagsync(on_error=errors.append, flush_interval_seconds=60)
    mixpanel.fail(distinct_id=f"user_{position}", **fault)
    for number in range(11):
        client.get_identity_flags(f"user_{number}")
    assert client.flush()
    assert {*mixpanel.profiles} == {f"user_{number}" for number in range(11)} - {f"user_{position}"}
    assert [(error.identifiers, error.will_retry) for error in errors] == [((f"user_{position}",), False)]
    assert (client.stats().delivered, client.stats().rejected) == (10, 1)


def test_batch_of_bad_updates_is_rejected_and_the_next_update_gets_through(
    flagsync: Build, mixpanel: MixpanelServer
) -> None:
    client = flagsync(flush_interval_seconds=60)
    mixpanel.fail(status=400, times=5)  # three updates, alone and in company
    for number in range(3):
        client.get_identity_flags(f"poison_{number}")
    assert client.flush()
    client.get_identity_flags("user_1")
    assert client.flush()
    assert {*mixpanel.profiles} == {"user_1"}
    assert (client.stats().delivered, client.stats().rejected) == (1, 3)


def test_exposures_arrive_once_while_requests_fail(
    flagsync: Build, mixpanel: MixpanelServer, tmp_path: Path
) -> None:
    client = flagsync(outbox=tmp_path / "outbox.db")
    faults: Iterator[dict[str, Any]] = cycle(
        [{"status": 503}, {"status": 429}, {"drop": True}, {"status": 500}]
    )
    flags = [
        Flag(enabled=True, value="x", feature_id=1, feature_name=f"experiment_{number}") for number in range(5)
    ]
    for chunk in [*range(20)] * 2:
        mixpanel.fail(times=1, **next(faults))
        for number, flag in product(range(20), flags):
            client.track_exposure(f"user_{chunk}_{number}", flag)
        assert client.flush()
    names = ("distinct_id", "Experiment name")
    # Mixpanel merges events with equal ids. One whose answer did not come may arrive twice.
    events = {event["properties"]["$insert_id"]: event["properties"] for event in mixpanel.events}
    met = Counter(tuple(event[name] for name in names) for event in events.values())
    assert (len(met), {*met.values()}) == (2000, {1})
    exposures = client.stats().exposures
    assert (exposures.accepted, exposures.delivered, exposures.unchanged) == (4000, 2000, 2000)
