"""Http: requests that raise nothing; what is followed, kept and read of their replies."""

import gzip
from base64 import b64encode
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flagsync._delivery.answers import Reply
from flagsync._delivery.http import MAX_REPLY_BYTES, MAX_RETRY_AFTER_SECONDS, Http, seconds_from
from flagsync.testing import MixpanelServer
from tests.support.sockets import OK, RawServer, free_port

SECONDS = 10.0


@pytest.fixture
def http() -> Iterator[Http]:
    http = Http({"X-Header": "value"})
    yield http
    http.close()


def post(http: Http, url: str, seconds: float = SECONDS) -> Reply | str:
    return http.request("POST", url, b"body", seconds)


def test_request_has_its_method_headers_and_body(http: Http, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(status=418, body="teapot")
    assert http.request("PUT", f"{mixpanel.url}/path", b"body", SECONDS) == Reply(418, b"teapot")
    [request] = mixpanel.requests
    assert (request.method, request.path, request.body) == ("PUT", "/path", b"body")
    assert request.headers["X-Header"] == "value"


def test_connection_is_kept_for_all_requests(http: Http, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=1, status=400)
    for _ in range(3):
        post(http, mixpanel.url)
    assert len({request.connection for request in mixpanel.requests}) == 1


def test_connection_is_opened_again_after_close(http: Http, mixpanel: MixpanelServer) -> None:
    for _ in range(2):
        assert isinstance(post(http, mixpanel.url), Reply)
        http.close()
    assert len({request.connection for request in mixpanel.requests}) == 2


def test_close_hangs_up(http: Http) -> None:
    with RawServer(OK) as server:
        assert post(http, server.url) == Reply(200, b"ok")
        http.close()
        assert server.has_hung_up.wait(SECONDS)


# Redirects and cookies


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_not_followed(http: Http, mixpanel: MixpanelServer, status: int) -> None:
    mixpanel.fail(times=1, status=status, headers={"Location": f"{mixpanel.url}/elsewhere"})
    assert post(http, mixpanel.url) == Reply(status, b"")
    assert len(mixpanel.requests) == 1


def test_cookies_are_never_sent_back(http: Http, mixpanel: MixpanelServer) -> None:
    for number in range(3):
        mixpanel.fail(times=1, status=200, headers={"Set-Cookie": f"cookie{number}=x; Path=/"})
        mixpanel.fail(times=1, status=307, headers={"Set-Cookie": f"other{number}=x", "Location": "/there"})
    for _ in range(7):
        post(http, mixpanel.url)
    assert len(mixpanel.requests) == 7
    assert not any("Cookie" in request.headers for request in mixpanel.requests)


# Replies


@pytest.mark.parametrize(
    "hints",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 199 Whatever\r\nX-Header: 1\r\nX-Header: 2\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" * 3,
    ],
    ids=["103", "102", "100", "199", "many"],
)
def test_informational_reply_is_passed_over(http: Http, hints: bytes) -> None:
    with RawServer(hints + OK, hints + OK) as server:
        assert [post(http, server.url) for _ in range(2)] == [Reply(200, b"ok")] * 2
        http.close()


def test_reply_that_switches_protocols_is_a_reply(http: Http) -> None:
    with RawServer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n") as server:
        assert post(http, server.url) == Reply(101, b"")
        http.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Header: 1\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 103 Early Hints\r\n" + b"Link: 1\r\n" * 200 + b"\r\n" + OK,
        b"HTTP/1.1 200 OK\r\nX-Header: " + b"x" * 100_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnone\r\n",
    ],
)
def test_broken_reply_is_no_reply(http: Http, answer: bytes) -> None:
    with RawServer(answer) as server:
        assert isinstance(post(http, server.url, 0.3), str)


@pytest.mark.parametrize("status", [200, 301, 500])
def test_huge_reply_is_not_read_to_its_end(http: Http, mixpanel: MixpanelServer, status: int) -> None:
    mixpanel.fail(times=1, status=status, body="x" * 10_000_000, headers={"Location": "http://[nowhere"})
    assert post(http, mixpanel.url) == Reply(status, b"x" * MAX_REPLY_BYTES)
    mixpanel.fail(times=1, status=200)
    assert post(http, mixpanel.url) == Reply(200, b"")
    # What is not read cannot be kept.
    assert len({request.connection for request in mixpanel.requests}) == 2


def test_compressed_reply_is_decoded_up_to_a_bound(http: Http, mixpanel: MixpanelServer) -> None:
    for text in (b"ok", b"x" * 10_000_000):
        mixpanel.fail(times=1, status=200, body=gzip.compress(text), headers={"Content-Encoding": "gzip"})
        assert post(http, mixpanel.url) == Reply(200, text[:MAX_REPLY_BYTES])


def test_reply_with_a_false_content_encoding_is_no_reply(http: Http, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=1, status=200, body="not compressed", headers={"Content-Encoding": "gzip"})
    assert post(http, mixpanel.url) == "DecodeError"


def test_dropped_connection_is_no_reply(http: Http, mixpanel: MixpanelServer) -> None:
    mixpanel.fail(times=1, drop=True)
    assert post(http, mixpanel.url) == "ConnectionError"
    assert isinstance(post(http, mixpanel.url), Reply)


def test_server_that_is_not_there_is_no_reply(http: Http) -> None:
    assert post(http, f"http://127.0.0.1:{free_port()}/") == "ConnectionError: Connection refused"


# Credentials


@pytest.mark.parametrize(
    ("user_info", "credentials"),
    [
        ("user:password", "user:password"),
        ("user", "user:"),
        (":password", ":password"),
        ("us%40er:p%3Aa%2Fs%40s", "us@er:p:a/s@s"),
        ("user:p@ss", "user:p@ss"),
        ("us%E2%82%ACr:пароль", "us€r:пароль"),
    ],
)
def test_credentials_of_the_url_are_sent(
    http: Http, mixpanel: MixpanelServer, user_info: str, credentials: str
) -> None:
    assert isinstance(post(http, mixpanel.url.replace("//", f"//{user_info}@")), Reply)
    sent = mixpanel.requests[0].headers["Authorization"]
    assert sent == f"Basic {b64encode(credentials.encode()).decode()}"


@pytest.mark.parametrize("machine", ["machine 127.0.0.1", "default"])
def test_credentials_of_netrc_are_never_sent(
    http: Http, mixpanel: MixpanelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: str
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text(f"{machine}\nlogin user\npassword secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert isinstance(post(http, mixpanel.url), Reply)
    assert "Authorization" not in mixpanel.requests[0].headers


# Proxies


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.mark.parametrize("host", ["mixpanel.invalid", "localhost", "127.0.0.1"])
@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY"])
def test_proxy_of_the_environment_is_used_for_every_host(
    http: Http, mixpanel: MixpanelServer, environment: pytest.MonkeyPatch, host: str, name: str
) -> None:
    environment.setenv(name, mixpanel.url)
    assert isinstance(post(http, f"http://{host}/engage"), Reply)
    assert mixpanel.requests[0].path == f"http://{host}/engage"


def test_proxy_of_the_environment_is_not_used_where_no_proxy_says_so(
    http: Http, mixpanel: MixpanelServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    environment.setenv("NO_PROXY", "127.0.0.1")
    assert isinstance(post(http, mixpanel.url), Reply)


def test_proxy_that_is_given_is_used(mixpanel: MixpanelServer) -> None:
    http = Http({}, {"http": mixpanel.url})
    assert isinstance(post(http, "http://mixpanel.invalid/engage"), Reply)
    assert mixpanel.requests[0].path == "http://mixpanel.invalid/engage"
    http.close()


def test_proxy_gets_its_own_credentials_and_the_server_those_of_the_url(mixpanel: MixpanelServer) -> None:
    http = Http({}, {"http": mixpanel.url.replace("//", "//user:pass%40word@")})
    post(http, "http://other:secret@mixpanel.invalid/engage")
    [request] = mixpanel.requests
    assert request.path == "http://mixpanel.invalid/engage"
    credentials = [request.headers[name] for name in ("Proxy-Authorization", "Authorization")]
    assert credentials == [f"Basic {b64encode(text).decode()}" for text in (b"user:pass@word", b"other:secret")]
    http.close()


# Retry-After


@pytest.mark.parametrize(
    ("retry_after", "seconds"),
    [
        ("7", 7),
        (" 7.5 ", 7.5),
        ("0", 0),
        ("-5", 0),
        ("soon", 0),
        ("nan", 0),
        ("1e9", 3600),
        ("inf", 3600),
        ("-inf", 0),
        ("7, 8", 0),
        ("", 0),
        ("Wed, 99 Oct 2015 07:28:00 GMT", 0),
        ("Wed, 21 Oct 99999999999999999999 07:28:00 GMT", 0),
    ],
)
def test_retry_after_in_seconds_is_honoured_within_bounds(retry_after: str, seconds: float) -> None:
    assert seconds_from(retry_after) == seconds


@pytest.mark.parametrize(("ahead", "seconds"), [(30, 30), (-30, 0), (10**6, 3600)])
def test_retry_after_as_a_date_is_honoured_within_bounds(ahead: int, seconds: float) -> None:
    assert seconds_from(formatdate(time() + ahead, usegmt=True)) == pytest.approx(seconds, abs=2)


DATE_PARTS = [
    "Wed,",
    "21",
    "Oct",
    "2015",
    "07:28:00",
    "GMT",
    "+2359",
    "-0000",
    "+999999",
    "1",
    "0001",
    ":",
    ",",
    "-",
]


@given(
    st.text(st.characters(max_codepoint=255)) | st.lists(st.sampled_from(DATE_PARTS), max_size=7).map(" ".join)
)
def test_retry_after_is_never_an_error_nor_out_of_bounds(retry_after: str) -> None:
    assert 0 <= seconds_from(retry_after) <= MAX_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("status", [200, 429, 503])
def test_retry_after_comes_with_the_reply(http: Http, mixpanel: MixpanelServer, status: int) -> None:
    mixpanel.fail(times=1, status=status, headers={"Retry-After": "7"})
    assert post(http, mixpanel.url) == Reply(status, b"", 7.0)
