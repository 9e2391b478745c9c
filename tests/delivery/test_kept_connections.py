"""Http: requests over a connection that was kept, and that has ended meanwhile."""

import socket
from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from flagsync._delivery.answers import Reply
from flagsync._delivery.http import Http
from flagsync.testing import MixpanelServer
from tests.support.sockets import (
    OK,
    ForgetfulServer,
    RawServer,
    end_with_fin,
    end_with_reset,
    read_request,
)

SOON_SECONDS, SECONDS = 0.3, 10.0
LARGE_BODY = b"x" * 8_000_000  # more than sockets hold
DONE = Reply(200, b"ok")
End = Callable[[socket.socket], None]
ENDS = {"FIN": end_with_fin, "RST": end_with_reset}


@pytest.fixture
def http() -> Iterator[Http]:
    http = Http({})
    yield http
    http.close()


def post(http: Http, url: str, body: bytes = b"body", seconds: float = SECONDS) -> Reply | str:
    return http.request("POST", url, body, seconds)


def after_the_request(end: End) -> End:
    def read_and_end(connection: socket.socket) -> None:
        read_request(connection)
        end(connection)

    return read_and_end


@pytest.mark.parametrize("end", ENDS)
def test_dead_connection_that_was_idle_is_replaced(http: Http, end: str) -> None:
    with ForgetfulServer(ENDS[end], is_before=True) as server:
        assert post(http, server.url) == DONE
        server.forget()
        assert (post(http, server.url), server.connections) == (DONE, 2)
        http.close()


@pytest.mark.parametrize("body", [b"body", LARGE_BODY], ids=["short", "large"])
@pytest.mark.parametrize("end", ENDS)
def test_dead_connection_is_replaced_while_a_request_is_written(http: Http, end: str, body: bytes) -> None:
    with ForgetfulServer(ENDS[end]) as server:
        assert post(http, server.url) == DONE
        assert (post(http, server.url, body), server.connections) == (DONE, 2)
        http.close()


@pytest.mark.parametrize("end", ENDS)
def test_dead_connection_is_replaced_when_a_request_gets_no_byte_of_an_answer(http: Http, end: str) -> None:
    with ForgetfulServer(after_the_request(ENDS[end])) as server:
        assert post(http, server.url) == DONE
        assert (post(http, server.url), server.connections) == (DONE, 2)
        http.close()


def test_dead_connection_is_replaced_each_time(http: Http) -> None:
    with ForgetfulServer(end_with_reset) as server:
        assert [post(http, server.url) for _ in range(5)] == [DONE] * 5
        assert server.connections == 5
        http.close()


def test_dead_connection_to_a_proxy_is_replaced() -> None:
    with ForgetfulServer(end_with_reset) as server:
        http = Http({}, {"http": server.url})
        assert [post(http, "http://mixpanel.invalid/engage") for _ in range(2)] == [DONE] * 2
        assert server.connections == 2
        http.close()


def test_dead_connection_is_replaced_once_only(http: Http, mixpanel: MixpanelServer) -> None:
    assert isinstance(post(http, mixpanel.url), Reply)
    mixpanel.fail(drop=True)
    assert isinstance(post(http, mixpanel.url), str)
    assert len(mixpanel.requests) == 1 + 2
    assert len({request.connection for request in mixpanel.requests}) == 2


def test_dropped_request_on_a_new_connection_is_not_sent_again(http: Http, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(drop=True)
    assert isinstance(post(http, mixpanel.url), str)
    assert len(mixpanel.requests) == 1


@pytest.mark.parametrize("answer", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 2"])
def test_request_whose_answer_has_begun_is_not_sent_again(http: Http, answer: bytes) -> None:
    def answer_and_end(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    with ForgetfulServer(answer_and_end) as server:
        assert post(http, server.url) == DONE
        assert isinstance(post(http, server.url), str)
        assert server.connections == 1


def test_request_without_an_answer_is_not_sent_again_after_its_deadline(http: Http) -> None:
    with RawServer(OK) as server:
        assert post(http, server.url) == DONE
        assert isinstance(post(http, server.url, seconds=SOON_SECONDS), str)
        assert len(server.requests) == 1


def test_request_that_the_server_has_worked_on_is_not_sent_again(mixpanel: MixpanelServer) -> None:
    http = Http({}, dead_within_seconds=0.1)
    assert isinstance(post(http, mixpanel.url), Reply)
    mixpanel.fail(times=1, drop=True, delay_seconds=0.2)
    assert isinstance(post(http, mixpanel.url), str)
    assert len(mixpanel.requests) == 2


def test_request_over_a_second_connection_keeps_its_deadline(http: Http, mixpanel: MixpanelServer) -> None:
    assert isinstance(post(http, mixpanel.url), Reply)
    mixpanel.fail(times=1, drop=True, delay_seconds=SOON_SECONDS / 2)
    mixpanel.fail(delay_seconds=SECONDS)
    began = monotonic()
    assert isinstance(post(http, mixpanel.url, seconds=SOON_SECONDS), str)
    assert monotonic() - began < 2 * SOON_SECONDS
    assert len(mixpanel.requests) == 3


def test_connection_that_was_idle_for_long_is_not_used_again(mixpanel: MixpanelServer) -> None:
    http = Http({}, max_idle_seconds=0.0)
    for _ in range(3):
        assert isinstance(post(http, mixpanel.url), Reply)
    assert len({request.connection for request in mixpanel.requests}) == 3
    http.close()
