"""DeadlineAdapter: requests that end at their deadline, whoever trickles."""

import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

import pytest
import requests

from flagsync._delivery.answers import Reply
from flagsync._delivery.deadlines import DeadlineAdapter, Exchange, _DeadlineStream, set_timeout
from flagsync._delivery.http import Http
from flagsync.testing import MixpanelServer
from tests.support.sockets import SlowReader, TricklingServer

SOON_SECONDS, SECONDS = 0.1, 10.0
LARGE_BODY = b"x" * 8_000_000  # more than sockets hold


@pytest.fixture
def http() -> Iterator[Http]:
    http = Http({})
    yield http
    http.close()


@pytest.mark.parametrize(
    ("head", "repeated"),
    [
        (b"", b"x"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 100 Continue\r\n\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: ", b"x"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
    ],
    ids=[
        "status line",
        "header",
        "body",
        "body without length",
        "chunks",
        "after 100",
        "100 without end",
        "header of 103",
        "103 without end",
    ],
)
def test_reply_that_trickles_in_is_cut_off_at_the_deadline(http: Http, head: bytes, repeated: bytes) -> None:
    with TricklingServer(head, repeated) as server:
        assert isinstance(http.request("POST", server.url, b"", SOON_SECONDS), str)
        assert server.has_hung_up.wait(SECONDS)


def test_body_that_nobody_reads_is_given_up_at_the_deadline(http: Http) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/engage"
        assert isinstance(http.request("POST", url, LARGE_BODY, SOON_SECONDS), str)


def test_connecting_is_given_up_at_the_deadline(http: Http) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(5):  # so that the system answers no more of them
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/engage"
        assert http.request("POST", url, b"", SOON_SECONDS) == "ConnectTimeout"


def test_body_may_take_longer_than_connecting() -> None:
    with requests.Session() as session, SlowReader(len(LARGE_BODY), pause_seconds=0.2) as server:
        exchange = Exchange()
        exchange.deadline = monotonic() + SECONDS
        session.mount("http://", DeadlineAdapter(exchange))
        session.trust_env = False
        reply = session.post(server.url, data=LARGE_BODY, timeout=(0.05, SECONDS))
        assert (reply.status_code, reply.content) == (200, b"1")
        session.close()


def test_slow_reader_gets_the_whole_time_of_a_request(http: Http) -> None:
    with SlowReader(len(LARGE_BODY), pause_seconds=0.2) as server:
        assert http.request("POST", server.url, LARGE_BODY, SECONDS) == Reply(200, b"1")
        http.close()


def test_each_request_on_a_kept_connection_has_a_deadline_of_its_own(
    http: Http, mixpanel: MixpanelServer
) -> None:
    for seconds in (SECONDS, 0.5, SECONDS):
        assert isinstance(http.request("POST", mixpanel.url, b"", seconds), Reply)
    assert len({request.connection for request in mixpanel.requests}) == 1


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_nothing_is_read_after_the_deadline(seconds: float) -> None:
    exchange = Exchange()
    exchange.deadline = monotonic() + seconds
    with socket.socket() as sock, pytest.raises(TimeoutError):
        _DeadlineStream(io.BytesIO(b"late"), sock, exchange).readinto(bytearray(1))


def test_socket_gets_the_time_that_is_left() -> None:
    with socket.socket() as sock:
        set_timeout(sock, 1.5)
        assert sock.gettimeout() == 1.5
        with pytest.raises(TimeoutError):
            set_timeout(sock, 0.0)
        assert sock.gettimeout() == 1.5
