"""Why a request gets no reply: outages, and configurations that cannot work."""

import logging
import os
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flagsync import FlagSync
from flagsync._delivery.answers import Misconfiguration, Reply
from flagsync._delivery.http import Http
from flagsync.exceptions import DeliveryError
from flagsync.testing import MixpanelServer
from tests.support.sockets import (
    BreakingServer,
    ForgetfulServer,
    RawServer,
    TunnelingProxy,
    end_with_reset,
    free_port,
)

SECONDS = 10.0
CERTIFICATE = Path(__file__).parents[1] / "data" / "localhost.pem"  # and its key, valid until 2126
MIXPANEL = "https://mixpanel.invalid/engage"
Post = Callable[[str], Reply | str]


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without proxies and certificates."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "requests_ca_bundle", "curl_ca_bundle"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return monkeypatch


@pytest.fixture
def post(environment: pytest.MonkeyPatch) -> Iterator[Post]:
    http = Http({})
    yield lambda url: http.request("POST", url, b"body", SECONDS)
    http.close()


@pytest.fixture
def tls() -> Iterator[str]:
    """The URL of a server with a certificate for localhost that is signed by nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with ForgetfulServer(end_with_reset, context=context) as server:
        yield server.url.replace("http://127.0.0.1", "https://localhost")


# Certificates


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_ca_bundle_of_the_environment_is_trusted_for_every_host(
    post: Post, tls: str, environment: pytest.MonkeyPatch, name: str
) -> None:
    environment.setenv(name, str(CERTIFICATE))
    # The second one meets a connection that was reset: TLS connections are replaced, too.
    assert [post(tls), post(tls)] == [Reply(200, b"ok")] * 2


def test_certificate_that_nobody_has_signed_is_a_misconfiguration(post: Post, tls: str) -> None:
    reply = post(tls)
    assert isinstance(reply, Misconfiguration)
    assert reply.startswith("the certificate cannot be verified: self")  # self-signed, or self signed
    assert reply.endswith("; check the CA bundle (REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE)")


def test_certificate_of_another_host_is_a_misconfiguration(
    post: Post, tls: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    reply = post(tls.replace("localhost", "127.0.0.1"))
    assert isinstance(reply, Misconfiguration)
    assert reply.startswith("the certificate cannot be verified: ")
    assert "127.0.0.1" in reply


def test_certificate_behind_a_tunnel_that_cannot_be_verified_is_a_misconfiguration(
    post: Post, environment: pytest.MonkeyPatch
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with TunnelingProxy(context) as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url)
        reply = post(MIXPANEL)
    assert isinstance(reply, Misconfiguration)
    assert reply.startswith("the certificate cannot be verified")


def test_ca_bundle_that_is_not_there_is_a_misconfiguration(
    post: Post, tls: str, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("REQUESTS_CA_BUNDLE", "/no/such/ca.pem")
    reply = post(tls)
    assert isinstance(reply, Misconfiguration)
    assert "invalid path: /no/such/ca.pem; check the CA bundle (REQUESTS_CA_BUNDLE" in reply


@pytest.mark.parametrize(
    "content", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", None]
)
def test_ca_bundle_that_cannot_be_read_is_a_misconfiguration(
    post: Post, tls: str, environment: pytest.MonkeyPatch, tmp_path: Path, content: bytes | None
) -> None:
    path = "/proc/self/mem"  # of which nobody can read the beginning
    if content is not None:
        path = str(tmp_path / "ca.pem")
        Path(path).write_bytes(content)
    environment.setenv("REQUESTS_CA_BUNDLE", path)
    reply = post(tls)
    assert isinstance(reply, Misconfiguration)
    assert reply.startswith("the CA bundle cannot be read")
    assert "REQUESTS_CA_BUNDLE" in reply


def test_tls_handshake_that_breaks_is_an_outage(post: Post) -> None:
    with BreakingServer() as server:
        reply = post(server.url.replace("http://", "https://"))
    assert isinstance(reply, str)
    assert not isinstance(reply, Misconfiguration)


# Proxies

WRONG_PROXIES = [
    "http://user:pass-word@[no-url:1",
    "foo://user:pass-word@127.0.0.1:9",
    "socks9://user:pass-word@127.0.0.1:9",
    "http://user:pass-word@:80",
    "http://user:pass-word@127.0.0.1:port",
    "http://user:pass-word@127.0.0.1:99999",
    "http://user:pass-word/@127.0.0.1:9",
    "http://us€r:pass-word@127.0.0.1:9",
    " http://user:pass-word@127.0.0.1:9",
]


@pytest.mark.parametrize("proxy", WRONG_PROXIES)
def test_proxy_that_cannot_be_used_is_a_misconfiguration(
    post: Post, environment: pytest.MonkeyPatch, proxy: str
) -> None:
    environment.setenv("HTTPS_PROXY", proxy)
    reply = post(MIXPANEL)
    assert isinstance(reply, Misconfiguration)
    assert "the proxy (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)" in reply
    assert "pass-word" not in reply


def test_proxy_of_socks_without_pysocks_is_a_misconfiguration(
    post: Post, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr("requests.adapters.SOCKSProxyManager", _without_pysocks())
    environment.setenv("HTTPS_PROXY", "socks5://user:pass-word@127.0.0.1:9")
    reply = post(MIXPANEL)
    assert isinstance(reply, Misconfiguration)
    assert "a SOCKS proxy needs PySocks: pip install 'requests[socks]'" in reply


def _without_pysocks() -> Callable[..., object]:
    """Return what requests has in place of a manager of SOCKS proxies."""
    from requests.exceptions import InvalidSchema  # noqa: PLC0415

    def refuse(*_: object, **__: object) -> object:
        raise InvalidSchema("Missing dependencies for SOCKS support.")

    return refuse


@pytest.mark.parametrize(
    ("status", "is_misconfigured"), [(407, True), (403, True), (429, False), (502, False), (503, False)]
)
def test_proxy_that_refuses_to_connect_is_a_misconfiguration_unless_it_may_later(
    post: Post, environment: pytest.MonkeyPatch, status: int, is_misconfigured: bool
) -> None:
    with RawServer(b"HTTP/1.1 %d No pass-word\r\nContent-Length: 0\r\n\r\n" % status) as proxy:
        environment.setenv("HTTPS_PROXY", proxy.url)
        reply = post(MIXPANEL)
    assert isinstance(reply, Misconfiguration) == is_misconfigured
    assert str(reply).startswith(f"the proxy answers HTTP {status}")
    assert "pass-word" not in reply


def test_proxy_whose_url_says_https_but_has_no_tls_is_a_misconfiguration(
    post: Post, mixpanel: MixpanelServer, environment: pytest.MonkeyPatch
) -> None:
    environment.setenv("HTTPS_PROXY", mixpanel.url.replace("http://", "https://user:pass-word@"))
    reply = post(MIXPANEL)
    assert isinstance(reply, Misconfiguration)
    assert reply.startswith("the proxy does not use TLS, so its URL must begin with http://; check the proxy")


def test_proxy_that_is_not_there_is_an_outage(post: Post, environment: pytest.MonkeyPatch) -> None:
    environment.setenv("HTTPS_PROXY", f"http://user:pass-word@127.0.0.1:{free_port()}")
    assert post(MIXPANEL) == "ProxyError: Connection refused"


def test_url_that_cannot_be_used_is_a_misconfiguration(post: Post) -> None:
    reply = post("https://user:pass-word@*.example/engage")
    assert isinstance(reply, Misconfiguration)
    assert "check the URL" in reply
    assert "pass-word" not in reply


# What a client says of it


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [("REQUESTS_CA_BUNDLE", "/no/such/ca.pem", "CA bundle"), ("HTTPS_PROXY", WRONG_PROXIES[0], "proxy")],
)
def test_misconfiguration_is_told_to_on_error_and_delivered_once_it_is_mended(
    flagsync: Callable[..., FlagSync],
    environment: pytest.MonkeyPatch,
    name: str,
    value: str,
    word: str,
) -> None:
    environment.setenv(name, value)
    errors: list[DeliveryError] = []
    client = flagsync(
        mixpanel_url=MIXPANEL.removesuffix("/engage"), flush_interval_seconds=0.01, on_error=errors.append
    )
    client.get_identity_flags("user")
    assert not client.flush(0.5)
    [error] = errors
    assert (error.misconfigured, error.will_retry) == (True, True)
    assert f"{error}".startswith("Configuration error: Mixpanel cannot be reached (")
    assert word in f"{error}"
    assert (client.close(0.1), errors[-1].misconfigured) == (False, True)


def test_password_of_a_url_or_a_proxy_is_in_no_log(
    post: Post, environment: pytest.MonkeyPatch, mixpanel: MixpanelServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with_password = mixpanel.url.replace("//", "//user:pass-word@")
    for proxy in (None, with_password, f"http://user:pass-word@127.0.0.1:{free_port()}", *WRONG_PROXIES):
        environment.setenv("HTTP_PROXY", proxy) if proxy else os.environ.pop("HTTP_PROXY", None)
        post(f"{with_password}/engage")
    assert len(mixpanel.requests) == 2
    assert caplog.messages
    assert "pass-word" not in caplog.text
