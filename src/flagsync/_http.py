"""HTTP that ends in time; the only import of ``requests``.

Guarantee: a request raises nothing, ends at its deadline and follows no redirect with the payload. Boundary:
what an answer means is said by who knows the service.
"""

import http.client
import io
import socket
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from enum import Enum
from time import monotonic, time
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 65536
MAX_RETRY_AFTER_SECONDS = 3600.0


class Outcome(Enum):
    """What an answer means for the updates that were sent."""

    ACCEPTED = 1
    REFUSED = 2  # one of them, or all, will never get through
    UNAVAILABLE = 3  # the same request may succeed later
    MISCONFIGURED = 4  # nothing gets through until a person acts


class Answer(NamedTuple):
    """How a request ended, and what to tell a person; ``text`` is the server's and may quote the request."""

    outcome: Outcome
    reason: str = ""
    retry_after_seconds: float = 0.0
    text: str = ""


class Reply(NamedTuple):
    """What a server said."""

    status: int
    body: bytes
    retry_after_seconds: float = 0.0


class Http:
    """A session of one thread."""

    def __init__(self, headers: Mapping[str, str], proxies: Mapping[str, str] = MappingProxyType({})) -> None:
        self._session = requests.Session()
        self._session.headers.update(headers)
        self._session.proxies.update(proxies)
        # Of a redirect that is not followed, requests (2.32) reads the whole body, however long.
        self._session.get_redirect_target = lambda _: None  # type: ignore[assignment]
        self._deadline = 0.0
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _DeadlineAdapter(self._patience))
        self.close = self._session.close

    def request(self, method: str, url: str, body: bytes, seconds: float) -> Reply | str:
        """Send a body; within about ``seconds``, return the reply or what prevented it."""
        self._deadline = monotonic() + seconds
        # A test server is not to be sought through the proxy of the company.
        self._session.trust_env = urlsplit(url).hostname not in ("127.0.0.1", "localhost", "::1")
        try:
            timeouts = (min(CONNECT_SECONDS, seconds), seconds)
            with self._session.request(method, url, data=body, timeout=timeouts, stream=True) as response:
                content = response.raw.read(MAX_ANSWER_BYTES, decode_content=True)
        except Exception as error:  # noqa: BLE001 - besides RequestException, errors of urllib3 and ssl get through
            # Nothing but the name: messages of urllib3 hold URLs, which may hold the password of a proxy.
            return type(error).__name__
        return Reply(response.status_code, content, seconds_from(response.headers.get("Retry-After", "")))

    def _patience(self) -> float:
        """Seconds that the next byte may take."""
        return self._deadline - monotonic()


def seconds_from(retry_after: str) -> float:
    """``Retry-After`` in seconds from now, at most an hour; 0 if there is none to honour."""
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after).timestamp() - time()
        except (ValueError, OverflowError):
            return 0.0
    return min(seconds, MAX_RETRY_AFTER_SECONDS) if seconds > 0 else 0.0


class _DeadlineAdapter(HTTPAdapter):
    """Requests are sent and answered by the deadline; a timeout of ``requests`` starts anew with each byte."""

    def __init__(self, patience: Callable[[], float]) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._pools: list[Any] = []
        self._patience = patience

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as requests has it
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if "ConnectionCls" not in vars(pool):
            bases, patience = (_DeadlineConnection, pool.ConnectionCls), staticmethod(self._patience)
            pool.ConnectionCls = type("DeadlineConnection", bases, {"patience": patience})
            self._pools.append(pool)
        return pool

    def close(self) -> None:
        for pool in self._pools:  # while Python exits, urllib3 2.8 leaves that to the garbage collector
            pool.close()
        super().close()


class _DeadlineConnection:
    """What a connection of ``http.client`` does otherwise."""

    patience: Callable[[], float]
    sock: socket.socket | None

    def send(self, data: Any) -> None:  # noqa: ANN401 - as http.client has it
        if self.sock:  # else it connects first; urllib3 2.8 gives a body no more time than connecting has
            hurry(self.sock, self.patience())
        super().send(data)  # type: ignore[misc]

    def response_class(self, sock: socket.socket, *args: Any, **kwargs: Any) -> http.client.HTTPResponse:  # noqa: ANN401
        response = http.client.HTTPResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_DeadlineStream(response.fp.detach(), sock, self.patience))
        return response


class _DeadlineStream(io.RawIOBase):
    def __init__(self, raw: Any, sock: socket.socket, patience: Callable[[], float]) -> None:  # noqa: ANN401
        self._raw, self._sock, self._patience = raw, sock, patience

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:  # noqa: ANN401 - a writable buffer
        hurry(self._sock, self._patience())
        return self._raw.readinto(buffer)  # type: ignore[no-any-return]

    def close(self) -> None:
        self._raw.close()
        super().close()


def hurry(sock: socket.socket, seconds: float) -> None:
    """Let what the socket does next take no longer."""
    if seconds <= 0:
        raise TimeoutError
    sock.settimeout(seconds)
