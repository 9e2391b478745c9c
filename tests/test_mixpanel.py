"""One request to Mixpanel: what is sent, and how each answer is read."""

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from email.utils import formatdate
from time import time
from typing import Any

import pytest
import requests

from flagsync import _http, _mixpanel
from flagsync._http import Answer, Outcome, _DeadlineStream, seconds_from
from flagsync._mixpanel import Engage, UpdateWriter
from flagsync.testing import MixpanelServer

UPDATE, _ = UpdateWriter("project-token").people_set("user_1", r'{"checkout": true, "colour": "\u65e5\u672c"}')
ACCEPTED, REFUSED = Outcome.ACCEPTED, Outcome.REFUSED
UNAVAILABLE, MISCONFIGURED = Outcome.UNAVAILABLE, Outcome.MISCONFIGURED


@pytest.fixture
def post(mixpanel: MixpanelServer) -> Iterator[Callable[..., Answer]]:
    engage = Engage()
    yield lambda updates=(UPDATE,), seconds=10.0: engage.post(f"{mixpanel.url}/engage", updates, seconds)
    engage.close()


def test_the_sdk_writes_an_update_that_is_neither_a_place_nor_an_activity_of_the_user() -> None:
    update = json.loads(UPDATE)
    assert isinstance(update.pop("$time"), float)
    assert update == {
        "$token": "project-token",
        "$distinct_id": "user_1",
        "$set": {"checkout": True, "colour": "日本"},
        "$ip": "0",
        "$ignore_time": True,
    }
    assert UPDATE.isascii()


@pytest.mark.parametrize(
    "text", ['"$set":{}', '"$distinct_id":""', "%s 100% %(id)b %%", 'a "quoted" 日本 \\ name']
)
def test_no_text_is_taken_for_a_place_in_the_envelope(text: str) -> None:
    writer = UpdateWriter(text)
    for _ in range(2):  # the second one finds the envelope written
        update, _ = writer.people_set(text, json.dumps({text: text}))
        found = json.loads(update)
        assert (found["$token"], found["$distinct_id"], found["$set"]) == (text, text, {text: text})


def test_the_time_of_an_update_is_at_most_a_second_old(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(_mixpanel, "monotonic", lambda: now[0])
    writer = UpdateWriter("project-token")
    monkeypatch.setattr(writer._mixpanel, "_now", lambda: now[0])
    times = list[float]()
    for second in (100.0, 100.9, 101.0):
        now[0] = second
        times.append(json.loads(writer.people_set("user_1", "{}")[0])["$time"])
    assert times == [100.0, 100.0, 101.0]


def test_fingerprints_are_of_the_properties_alone() -> None:
    _, one = UpdateWriter("other").people_set("user_2", '{"a":1}')
    assert UpdateWriter("token").people_set("user_1", '{"a":1}')[1] == one
    assert UpdateWriter("token").people_set("user_1", '{"a":true}')[1] != one


def test_a_request_is_a_json_array(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    assert post([UPDATE, UPDATE]) == Answer(ACCEPTED)
    [request] = mixpanel.requests
    assert (request.method, request.path) == ("POST", "/engage?verbose=1")
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["X-Mixpanel-Integration-ID"] == "flagsync"
    assert json.loads(request.body) == [json.loads(UPDATE)] * 2


def test_one_connection_is_kept_for_all_requests(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, status=400)
    for _ in range(3):
        post()
    assert len({request.connection for request in mixpanel.requests}) == 1


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, '{"status": 1, "error": null}', ACCEPTED),
        (200, "1", ACCEPTED),
        (200, "0", REFUSED),
        (200, '{"status": 0, "error": "$distinct_id, missing or empty"}', REFUSED),
        (200, "{}", UNAVAILABLE),
        (200, "[]", UNAVAILABLE),
        (200, "[" * 100_000, UNAVAILABLE),
        (200, '{"a":' * 100_000, UNAVAILABLE),
        (200, "[1]", UNAVAILABLE),
        (200, "true", UNAVAILABLE),
        (200, "2", UNAVAILABLE),
        (200, '{"status": "ok"}', UNAVAILABLE),
        (200, "", UNAVAILABLE),
        (200, "<html>Sign in to the hotel</html>", UNAVAILABLE),
        (301, "", MISCONFIGURED),
        (400, '{"status": 0, "error": "bad"}', REFUSED),
        (401, '{"error": "no", "status": "error"}', MISCONFIGURED),
        (403, "", MISCONFIGURED),
        (404, "Not found", MISCONFIGURED),
        (408, "", UNAVAILABLE),
        (413, "", REFUSED),
        (429, '{"code": 429}', UNAVAILABLE),
        (500, "<html>", UNAVAILABLE),
        (502, "", UNAVAILABLE),
        (503, '{"status": 1}', UNAVAILABLE),
        (504, "1", UNAVAILABLE),
    ],
)
def test_an_answer_means(
    mixpanel: MixpanelServer, post: Callable[..., Answer], status: int, body: str, outcome: Outcome
) -> None:
    mixpanel.fail(times=1, status=status, body=body)
    answer = post()
    assert answer.outcome is outcome
    if outcome is not ACCEPTED:
        assert (f"HTTP {status}" in answer.reason, answer.text) == (True, body[:500])


def test_a_redirect_is_not_followed(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, status=307, headers={"Location": f"{mixpanel.url}/engage"})
    assert post().outcome is MISCONFIGURED
    assert len(mixpanel.requests) == 1


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [("7", 7), ("0", 0), ("-5", 0), ("soon", 0), ("nan", 0), ("1e9", 3600), ("inf", 3600), ("", 0)],
)
def test_retry_after_in_seconds_is_honoured_within_reason(retry_after: str, seconds: float) -> None:
    assert seconds_from(retry_after) == seconds


def test_retry_after_comes_with_the_answer(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, status=503, headers={"Retry-After": "7"})
    assert post().retry_after_seconds == 7


@pytest.mark.parametrize(("ahead", "seconds"), [(30, 30), (-30, 0), (10**6, 3600)])
def test_retry_after_as_a_date_is_honoured_within_reason(ahead: int, seconds: float) -> None:
    wait = seconds_from(formatdate(time() + ahead, usegmt=True))
    assert wait == pytest.approx(seconds, abs=2)


def test_a_dropped_connection_is_no_answer(mixpanel: MixpanelServer, post: Callable[..., Answer]) -> None:
    mixpanel.fail(times=1, drop=True)
    assert post() == Answer(UNAVAILABLE, "Mixpanel cannot be reached (ConnectionError)")


def test_a_server_that_is_not_there_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    engage, url = Engage(), f"http://127.0.0.1:{port}/engage"
    assert engage.post(url, [UPDATE], 5) == Answer(UNAVAILABLE, "Mixpanel cannot be reached (ConnectionError)")


def test_a_proxy_from_the_environment_is_used(
    mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", mixpanel.url)
    engage, url = Engage(), "http://mixpanel.invalid/engage"
    assert engage.post(url, [UPDATE], 5).outcome is ACCEPTED
    assert mixpanel.requests[0].path == "http://mixpanel.invalid/engage?verbose=1"
    engage.close()


def test_a_loopback_mixpanel_is_not_sought_through_a_proxy(
    post: Callable[..., Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert post().outcome is ACCEPTED


@pytest.mark.parametrize(("status", "outcome"), [(500, UNAVAILABLE), (301, MISCONFIGURED)])
def test_a_huge_answer_is_not_read_to_its_end(
    status: int, outcome: Outcome, mixpanel: MixpanelServer, post: Callable[..., Answer]
) -> None:
    mixpanel.fail(times=1, status=status, body="x" * 10_000_000, headers={"Location": "http://[nowhere"})
    answer = post()
    assert (answer.outcome, len(answer.text)) == (outcome, 500)
    assert post().outcome is ACCEPTED
    # What is not read cannot be kept.
    assert len({request.connection for request in mixpanel.requests}) == 2


def test_an_answer_in_no_encoding_is_read_as_far_as_it_goes(
    mixpanel: MixpanelServer, post: Callable[..., Answer]
) -> None:
    mixpanel.fail(times=1, status=400, body=b"caf\xe9")
    assert post().text == "caf\ufffd"


def test_an_answer_with_a_false_content_encoding_is_no_answer(
    mixpanel: MixpanelServer, post: Callable[..., Answer]
) -> None:
    mixpanel.fail(times=1, status=200, body="1", headers={"Content-Encoding": "gzip"})
    assert post().outcome is UNAVAILABLE


class Trickle:
    """A server that sends its answer byte by byte, for ever, and says when its client has hung up."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/engage"
        self.hung_up = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):
            connection.recv(65536)
            connection.sendall(self._head)
            connection.settimeout(0.01)
            while True:
                connection.sendall(b"x")
                with suppress(TimeoutError):
                    if not connection.recv(65536):
                        break
        self.hung_up.set()

    def end(self) -> None:
        self._thread.join()
        self._listener.close()


@pytest.mark.parametrize(
    "head", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n"]
)
def test_an_answer_that_trickles_in_is_cut_off_at_the_deadline(head: bytes) -> None:
    server = Trickle(head)
    engage, url = Engage(), server.url
    assert engage.post(url, [UPDATE], 0.1).outcome is UNAVAILABLE
    assert server.hung_up.wait(10)
    server.end()


def test_a_body_has_more_time_than_connecting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_http, "CONNECT_SECONDS", 0.05)
    body, ends = [b"x" * 8_000_000], threading.Event()  # more than sockets hold

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as request:
            ends.wait(0.2)
            request.read(len(body[0]))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1")
            ends.wait(10)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        engage, url = Engage(), f"http://127.0.0.1:{listener.getsockname()[1]}/engage"
        assert engage.post(url, body, 10) == Answer(ACCEPTED)
        ends.set()
        thread.join()
    engage.close()


def test_a_body_that_nobody_takes_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        engage, url = Engage(), f"http://127.0.0.1:{listener.getsockname()[1]}/engage"
        assert engage.post(url, [b"x" * 8_000_000], 0.1).outcome is UNAVAILABLE
    engage.close()


def test_an_error_says_nothing_of_the_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError("http://user:password@proxy:1")

    monkeypatch.setattr(requests.Session, "request", fail)
    assert "password" not in repr(Engage().post("http://host/engage", [UPDATE], 1))


def test_nothing_is_read_after_the_deadline() -> None:
    with socket.socket() as sock, pytest.raises(TimeoutError):
        _DeadlineStream(io.BytesIO(b"late"), sock, lambda: 0.0).readinto(bytearray(1))
