"""HTTP requests that raise nothing and end in time; the only import of ``requests``.

Guarantee: a request ends at its deadline, follows no redirect with the payload, and keeps no cookie. A request over a
connection that the server has closed meanwhile is sent again over a new one. Proxies and the CA bundle come from the
environment as in ``requests``, for every host; credentials only from the URL, never from ``~/.netrc``. Boundary:
``answers`` says what a reply means.
"""

from base64 import b64encode
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

import requests
from requests.utils import get_environ_proxies, select_proxy

from flagsync._clock import monotonic, time
from flagsync._delivery.answers import Reply
from flagsync._delivery.deadlines import DeadlineAdapter, Exchange, Stage
from flagsync._delivery.failures import reason_of

CONNECT_SECONDS = 5.0
MAX_IDLE_SECONDS = 30.0
DEAD_WITHIN_SECONDS = 2.0
LAST_SECONDS = 0.001  # requests takes no timeout of 0
MAX_REPLY_BYTES = 65536
MAX_RETRY_AFTER_SECONDS = 3600.0


class Http:
    """A session for one thread at a time.

    Args:
        headers: Sent with each request.
        proxies: As in ``requests``, in addition to those of the environment.
        verify: As in ``requests``: whether certificates are verified, or the path of those to trust.
        cert: As in ``requests``: the path of a client certificate, or the paths of it and of its key.
        connect_seconds: How long connecting may take.
        max_idle_seconds: A connection that was idle for longer is not used again: a router on the way may have
            forgotten it, and drop silently what is sent.
        dead_within_seconds: A kept connection that ends this soon after a request was already dead. If it ends later,
            the server may still be working on the request, which must not be sent again at once.
    """

    def __init__(
        self,
        headers: Mapping[str, str],
        proxies: Mapping[str, str] = MappingProxyType({}),
        *,
        verify: bool | str | None = True,
        cert: str | tuple[str, str] | None = None,
        connect_seconds: float = CONNECT_SECONDS,
        max_idle_seconds: float = MAX_IDLE_SECONDS,
        dead_within_seconds: float = DEAD_WITHIN_SECONDS,
    ) -> None:
        self._session, self._exchange = requests.Session(), Exchange()
        self._connect_seconds, self._max_idle_seconds = connect_seconds, max_idle_seconds
        self._dead_within_seconds, self._idle_since = dead_within_seconds, 0.0
        self._session.headers.update(headers)
        self._session.proxies.update(proxies)
        self._session.verify, self._session.cert = verify, cert
        self._session.auth = _authorize
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        # requests 2.32 reads the whole body of a redirect, however long, even if it does not follow it.
        self._session.get_redirect_target = lambda _: None  # type: ignore[assignment]
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, DeadlineAdapter(self._exchange))

    def request(self, method: str, url: str, body: bytes, seconds: float) -> Reply | str:
        """Send a body; within about ``seconds``, return the reply, or why there is none."""
        if monotonic() - self._idle_since > self._max_idle_seconds:
            self.close()
        self._exchange.deadline = monotonic() + seconds
        reply = self._attempt(method, url, body)
        if self._exchange.met_a_dead_connection(self._dead_within_seconds):
            reply = self._attempt(method, url, body)
        self._idle_since = monotonic()
        return reply

    def close(self) -> None:
        """Close the connections; they are opened again when they are needed."""
        self._session.close()

    def _attempt(self, method: str, url: str, body: bytes) -> Reply | str:
        self._exchange.begin()
        seconds = max(self._exchange.seconds_left(), LAST_SECONDS)
        try:
            timeouts = (min(self._connect_seconds, seconds), seconds)
            with self._session.request(method, url, data=body, timeout=timeouts, stream=True) as response:
                content = response.raw.read(MAX_REPLY_BYTES, decode_content=True)[:MAX_REPLY_BYTES]
        except Exception as error:  # noqa: BLE001 - besides RequestException, urllib3 and ssl raise their own
            return reason_of(error, is_unsent=self._exchange.stage is Stage.PREPARED)
        headers = response.headers
        retry_after = seconds_from(headers.get("Retry-After", ""))
        return Reply(response.status_code, content, retry_after, headers.get("Date", ""))


def _authorize(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Add the credentials of the URL. Without this, requests looks for some in ``~/.netrc``."""
    parts = urlsplit(request.url or "")
    if parts.username or parts.password:
        credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        request.headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return request


def proxy_for(url: str) -> str | None:
    """Return the proxy that requests to a URL go through, as the environment says; None if they go through none."""
    return select_proxy(url, get_environ_proxies(url))


def seconds_from(retry_after: str) -> float:
    """Return a ``Retry-After`` header in seconds from now, at most an hour; 0.0 if there is none to honour."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except (ValueError, OverflowError):
            return 0.0
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds > 0 else 0.0
